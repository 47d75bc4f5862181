package relay

import (
	"errors"

	"golang.org/x/sys/unix"
)

// keepalive is when a silent end of a connection is asked whether it is there, tcp(7). Keepalives of a client and
// of its service reach no further than the relay: it asks both.
type keepalive struct {
	idle     int // seconds without a word, before the first question
	interval int // seconds between questions, as long as there is no answer
	count    int // of them
}

// set has the kernel ask. What is set on a listening socket holds for those accepted.
func (k keepalive) set(fd int) error {
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, k.idle),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, k.interval),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, k.count),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1))
}
