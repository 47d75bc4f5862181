package wire

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/pod"
)

// givenMaker is a Maker as a helper has it in its hands, at the moment when it gets it.
func givenMaker(t *testing.T) *nsenter.Maker {
	t.Helper()
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	self := os.NewFile(uintptr(pidfd), "pidfd")
	t.Cleanup(func() { self.Close() }) // when nobody sends it any more: cleanups come in the reverse order
	ours, theirs, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	w := NewWiring(&pod.Pod{ID: "0123456789ab"}, &pod.NetState{})
	w.Helper = &helper{conn: ours}
	if w.Maker, err = perform.StartMaker(self, 0, ForNetwork...); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- w.serveMember(self) }()
	request := &control.Request{}
	files, err := control.Receive(theirs, request)
	if err != nil || request.Do != control.Serve || len(files) != 2 {
		t.Fatalf("%+v, %d files, %v, %v", request, len(files), err, <-served)
	}
	t.Cleanup(func() {
		control.Close(files)
		_ = control.Send(theirs, &control.Answer{})
		if err := <-served; err != nil {
			t.Error(err)
		}
		w.close()
	})
	return nsenter.NewMaker(files[1])
}

// Whoever takes a helper over has its Makers: none of them does more than to make sockets, from the first moment.
func TestGivenMaker(t *testing.T) {
	call := func(nr int, args ...any) nsenter.Call { return nsenter.Call{Nr: nr, Args: args} }
	socket := call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	one := binary.NativeEndian.AppendUint32(nil, 1)
	option := func(level, name int) []nsenter.Call {
		return []nsenter.Call{socket, call(unix.SYS_SETSOCKOPT, nsenter.Result(0), level, name, one, 4)}
	}
	then := func(nr int, args ...any) []nsenter.Call {
		return []nsenter.Call{socket, call(nr, append([]any{nsenter.Result(0)}, args...)...)}
	}
	for what, calls := range map[string][]nsenter.Call{
		"open a file":         {call(unix.SYS_OPENAT, unix.AT_FDCWD, "/etc/passwd", unix.O_RDONLY, 0)},
		"start a program":     {call(unix.SYS_EXECVE, "/bin/true", nsenter.Strings([]string{"true"}), nsenter.Strings(nil))},
		"fork":                {call(nsenter.Clone, 0)},
		"an init":             {call(nsenter.Init)},
		"setns":               {call(unix.SYS_SETNS, nsenter.EnterFD, 0)},
		"unshare":             {call(unix.SYS_UNSHARE, unix.CLONE_NEWNS)},
		"kill":                {call(unix.SYS_KILL, os.Getpid(), 0)},
		"ptrace":              {call(unix.SYS_PTRACE, 0, 0, 0, 0)},
		"memory to run":       {call(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON, -1, 0)},
		"let memory run":      {call(unix.SYS_MPROTECT, 0, 4096, unix.PROT_READ|unix.PROT_EXEC)},
		"prctl":               {call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0)},
		"netlink":             {call(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)},
		"the firewall":        {call(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)},
		"packets":             {call(unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW, 0)},
		"a raw socket":        {call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)},
		"a raw socket of 6":   {call(unix.SYS_SOCKET, unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)},
		"a UNIX socket":       {call(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0)},
		"SCTP":                {call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)},
		"MPTCP":               {call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)},
		"ping":                {call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)},
		"a firewall's rules":  option(unix.SOL_IP, 64), // IPT_SO_SET_REPLACE
		"a device":            option(unix.SOL_SOCKET, unix.SO_BINDTODEVICE),
		"a larger buffer":     option(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE),
		"repair":              option(unix.IPPROTO_TCP, unix.TCP_REPAIR),
		"connect":             then(unix.SYS_CONNECT, make([]byte, 16), 16),
		"bind":                then(unix.SYS_BIND, make([]byte, 16), 16),
		"listen":              then(unix.SYS_LISTEN, 1),
		"an ioctl":            then(unix.SYS_IOCTL, unix.SIOCSIFFLAGS, network.UpRequest("lo")),
		"send to others":      then(unix.SYS_SENDTO, "x", 1, 0, 0, 0),
		"a message to others": then(unix.SYS_SENDMSG, make([]byte, 56), 0),
		"read from others":    then(unix.SYS_READ, make([]byte, 8), 8),
		"write":               then(unix.SYS_WRITE, "x", 1),
		"fcntl":               then(unix.SYS_FCNTL, unix.F_SETOWN, os.Getpid()),
		"a setting":           then(unix.SYS_FSETXATTR, "user.x", "x", 1, 0),
		"io_uring":            {call(unix.SYS_IO_URING_SETUP, 1, make([]byte, 120))},
	} {
		var failed *nsenter.CallError
		if _, err := givenMaker(t).Make(calls); !errors.As(err, &failed) || failed.Errno != unix.EPERM || failed.Place != len(calls)-1 {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What it is for goes on: sockets of both kinds and families, one batch after the other.
func TestGivenMakerMakesSockets(t *testing.T) {
	m := givenMaker(t)
	families := []int{unix.AF_INET}
	if files.Exists("/proc/sys/net/ipv6") {
		families = append(families, unix.AF_INET6)
	}
	for _, family := range families {
		for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
			var calls []nsenter.Call
			var pass []nsenter.Result
			for i := range 32 {
				calls = append(calls, nsenter.Call{Nr: unix.SYS_SOCKET, Args: []any{family, kind | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK, 0}})
				pass = append(pass, nsenter.Result(i))
			}
			fds, err := m.Make(calls, pass...)
			if err != nil || len(fds) != len(pass) {
				t.Fatalf("family %d, kind %d: %d sockets, %v", family, kind, len(fds), err)
			}
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
	}
}

func TestNamedConflist(t *testing.T) {
	for text, want := range map[string]string{
		`{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"bridge"}]}`: `{"cniVersion":"1.0.0","name":"app","plugins":[{"type":"bridge"}]}`,
		`{"cniVersion":"1.0.0","name":"x","type":"bridge"}`:               `{"cniVersion":"1.0.0","name":"app","plugins":[{"cniVersion":"1.0.0","name":"x","type":"bridge"}]}`,
	} {
		if got, err := namedConflist([]byte(text), "app"); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "[]", "{}", `{"plugins":[]}`, `{"plugins":[{}]}`, `{"plugins":["bridge"]}`} {
		if _, err := namedConflist([]byte(text), "app"); err == nil || len(fault.Hints(err)) == 0 {
			t.Errorf("%s was taken: %v", text, err)
		}
	}
}
