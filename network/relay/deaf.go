package relay

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A UDP port that nobody has is answered by the kernel, with ICMP's port unreachable, which takes a privilege to send
// for anybody else. So, where there is no service in the pod, the host's socket is made deaf until there is one: it is
// bound to an interface that does not exist, then no datagram is its own. Its port stays its own, since others are
// bound to no interface or another. To take that back takes CAP_NET_RAW, but not where connect(2) dissolves an
// association (AF_UNSPEC): that takes everything back, but the port that was bound by its number.

// nowhere is the number of no interface: they are counted from 1.
const nowhere = 1 << 30

// canHearAgain tries that with a socket of no use.
var canHearAgain = sync.OnceValue(func() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, nowhere) != nil || dissolve(fd) != no {
		return false
	}
	at, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
	return err == nil && at == 0
})

// deafen makes the binding deaf if nobody in the pod has its port. There may be services that take only clients they
// know: as long as there are any sessions it hears.
func (b *binding) deafen() {
	t, now := &b.port.target, b.loop.now()
	if t.Bound == nil || len(b.sessions) > 0 || b.deaf != nil || now < b.asked+b.loop.relay.times.look || !canHearAgain() {
		return
	}
	b.asked = now
	if bound, err := t.Bound(t.Port); bound || err != nil {
		return
	}
	if unix.SetsockoptInt(b.fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, nowhere) != nil {
		return // it is bound to an interface already: that of a link-local address
	}
	b.deaf = make(chan struct{})
	go b.awaitService(b.deaf)
}

// awaitService lets the binding hear again when somebody in the pod has the port, or nobody has for long: to look costs
// more than a datagram that gets lost.
func (b *binding) awaitService(over chan struct{}) {
	t, times := &b.port.target, &b.loop.relay.times
	look := time.NewTicker(times.look)
	defer look.Stop()
	for end := time.Now().Add(times.deaf); ; {
		select {
		case <-over:
			return
		case <-look.C:
		}
		if bound, err := t.Bound(t.Port); bound || err != nil || time.Now().After(end) {
			b.loop.post(b.hear) // else the loop has ended, and the binding with it
			return
		}
	}
}

// hear lets the binding hear again.
func (b *binding) hear() {
	if b.deaf == nil {
		return
	}
	close(b.deaf)
	b.deaf = nil
	dissolve(b.fd)
}

// wasDeaf lets a socket hear that another relay has left deaf.
func (b *binding) wasDeaf() {
	if at, err := unix.GetsockoptInt(b.fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX); err == nil && at == nowhere {
		dissolve(b.fd)
	}
}

// UDPBound says whether somebody has a UDP port, by the files udp and udp6 in a folder such as /proc/net, proc_net(5).
func UDPBound(folder string, port uint16) (bool, error) {
	suffix := fmt.Sprintf(":%04X", port)
	for _, name := range []string{"udp", "udp6"} {
		file, err := os.Open(folder + "/" + name)
		if os.IsNotExist(err) && name == "udp6" {
			continue // this kernel has no IPv6
		}
		if err != nil {
			return false, err
		}
		defer file.Close()
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			if fields := strings.Fields(lines.Text()); len(fields) > 1 && strings.HasSuffix(fields[1], suffix) {
				return true, nil
			}
		}
		if err := lines.Err(); err != nil {
			return false, err
		}
	}
	return false, nil
}
