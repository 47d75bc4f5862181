package nsenter_test

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/testns"
	"github.com/podsh/podsh/nsenter"
)

// newMaker starts an executor: this very program, whose constructor takes over.
func newMaker(t *testing.T) *nsenter.Maker {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	executor, err := nsenter.Start("/proc/self/exe", null, nil, &syscall.SysProcAttr{Setsid: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(executor.Reap)
	return executor.Maker()
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestMakerPassesDescriptors(t *testing.T) {
	m := newMaker(t)
	before := openDescriptors(t)
	for range 3 {
		var calls []nsenter.Call
		var pass []nsenter.Result
		for range nsenter.MostPassed {
			pass = append(pass, nsenter.Result(len(calls)))
			calls = append(calls, nsenter.Call{Nr: unix.SYS_SOCKET, Args: []any{unix.AF_INET, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC, 0}})
		}
		fds, err := m.Make(calls, pass...)
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_DGRAM {
				t.Errorf("%d is no such socket: %d, %v", fd, kind, err)
			}
			unix.Close(fd)
		}
	}
	if fds, err := m.Make([]nsenter.Call{{Nr: unix.SYS_GETPID}}); err != nil || len(fds) > 0 {
		t.Errorf("nothing to pass: %v, %v", fds, err)
	}
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors, and then %d", before, after)
	}
}

// A call that fails is told by its place, and is the Maker's end.
func TestMakerFails(t *testing.T) {
	m := newMaker(t)
	socket := nsenter.Call{Nr: unix.SYS_SOCKET, Args: []any{unix.AF_INET, unix.SOCK_DGRAM, 0}}
	bad := nsenter.Call{Nr: unix.SYS_SOCKET, Args: []any{-1, 0, 0}}
	var failed *nsenter.CallError
	if _, err := m.Make([]nsenter.Call{socket, bad}, 0); !errors.As(err, &failed) || failed.Place != 1 || failed.Errno != unix.EAFNOSUPPORT && failed.Errno != unix.EINVAL {
		t.Errorf("%v", err)
	}
	if _, err := m.Make([]nsenter.Call{socket}, 0); !errors.Is(err, nsenter.ErrGone) {
		t.Errorf("afterwards: %v", err)
	}
}

func request(m *nsenter.Maker, requests ...[]byte) error {
	calls := []nsenter.Call{{Nr: unix.SYS_SOCKET, Args: []any{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE}}}
	for _, r := range requests {
		calls = append(calls, nsenter.Call{Nr: unix.SYS_SENDTO, Args: []any{nsenter.Result(0), r, len(r), 0, 0, 0}})
		calls = append(calls, nsenter.Answer(nsenter.Result(0), len(calls)-1)...)
	}
	_, err := m.Make(calls)
	return err
}

// The kernel's answers on a netlink socket become the calls' own errors, and the Maker goes on.
func TestMakerOnNetlink(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	m := newMaker(t)
	own4, own6 := netip.MustParsePrefix("10.0.2.100/32"), netip.MustParsePrefix("fd70:6f64:7368::100/128")
	if err := request(m, network.SetLink(network.Loopback, 60000), network.AddAddress(network.Loopback, own4),
		network.AddAddress(network.Loopback, own6), network.AddReplyRoute(own4.Addr()), network.AddReplyRoute(own6.Addr()),
		network.AddReplyRule(own4.Addr()), network.AddReplyRule(own6.Addr()), network.AddPortRule(own4.Addr(), 53)); err != nil {
		t.Fatal(err)
	}
	var failed *nsenter.CallError
	err := request(m, network.AddAddress(network.Loopback, own4), network.AddReplyRule(own4.Addr()), network.DeletePortRule(own4.Addr(), 53))
	if !errors.As(err, &failed) || failed.Errno != unix.EEXIST || failed.Place != 4 {
		t.Errorf("a rule twice: %v", err)
	}
	if err := request(m, network.DeletePortRule(own4.Addr(), 53)); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a rule that is gone: %v", err)
	}
	for command, want := range map[string]string{
		"ip -o link show lo":                 "mtu 60000",
		"ip -o addr show lo":                 "inet 10.0.2.100/32",
		"ip -6 -o addr show lo":              "inet6 fd70:6f64:7368::100/128",
		"ip rule":                            "fwmark 0x7064 lookup 28772",
		"ip -6 rule":                         "fwmark 0x7064 lookup 28772",
		"ip route show table 28772":          "local default dev lo proto static scope host src 10.0.2.100",
		"ip -6 route show table 28772":       "local default dev lo",
		"ip route get 192.0.2.7 mark 0x7064": "local 192.0.2.7 dev lo",
	} {
		if got := testns.Run(t, strings.Fields(command)...); !strings.Contains(got, want) {
			t.Errorf("%s: no %q in\n%s", command, want, got)
		}
	}
	if got := testns.Run(t, "ip", "rule"); strings.Contains(got, "sport") {
		t.Errorf("the port's rule is left:\n%s", got)
	}
}
