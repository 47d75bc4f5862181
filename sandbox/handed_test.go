package sandbox

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/spec"
)

func TestParseSocket(t *testing.T) {
	for text, want := range map[string]string{
		"8080": "8080/tcp unknown", "127.0.0.1:53/udp=dns": "127.0.0.1:53/udp dns", "[::1]:80/tcp=a b": "[::1]:80/tcp a b",
		"": "", "x": "", "0": "", "70000": "", "8080:80": "", "8000-8001": "", "::1:80": "", "80/sctp": "", "80=": "", "80=a:b": "", "80=a\nb": "", "80=ä": "",
	} {
		s, err := spec.ParseSocket(text)
		if got := fmt.Sprintf("%s/%s %s", s.NetworkPort().Listens(), s.Protocol, s.Name); (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
		if err != nil && len(fault.Hints(err)) != 1 {
			t.Errorf("%q: %v, without a hint", text, err)
		}
	}
}

func TestValidateSockets(t *testing.T) {
	many := make([]string, nsenter.MaxSockets+1)
	for i := range many {
		many[i] = fmt.Sprint(8000 + i)
	}
	for _, c := range []struct {
		texts  []string
		limits []spec.Ulimit
		want   string
	}{
		{[]string{"8080", "8080/udp", "8081"}, []spec.Ulimit{{Name: "nofile", Soft: 64, Hard: 64}}, ""},
		{[]string{"127.0.0.1:8080", "127.0.0.2:8080"}, nil, ""},
		{[]string{"8080=a", "8080=b"}, nil, "8080/tcp and 8080/tcp are the same port"},
		{[]string{"127.0.0.1:53/udp", "53/udp"}, nil, "127.0.0.1:53/udp and 53/udp are the same port"},
		{many[1:], nil, ""},
		{many, nil, "33 sockets"},
		{[]string{"8080"}, []spec.Ulimit{{Name: "nofile", Soft: 8, Hard: 64}}, "leaves no room"},
	} {
		err := spec.ValidateSockets(parseSockets(t, c.texts...), c.limits...)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.texts, err, c.want)
		}
	}
}

// TestNothingElseIsOpen: when a command starts, beside its standard streams there is what it was to be given, and nothing else.
// By sockets no path is walked: openat(2) says ENOTDIR of one, and open(2) of its /proc/self/fd ENXIO.
func TestNothingElseIsOpen(t *testing.T) {
	for name, steps := range examplePlans(t) {
		first, given := 3, map[string]int{"run-sockets": 7, "join-sockets": 2}[name]
		open := map[int]bool{} // without FD_CLOEXEC
		for fd := range 100 {
			open[fd] = fd >= first && (!strings.HasPrefix(name, "join-") || fd < nsenter.PodFD || fd > nsenter.TTYFD) // those have it: nsenter.c
		}
		for _, call := range steps.Calls() {
			number := func(arg int) int { n, _ := call.Args[arg].(int); return n } // a Result has FD_CLOEXEC
			switch call.Nr {
			case unix.SYS_CLOSE:
				delete(open, number(0))
			case unix.SYS_CLOSE_RANGE:
				maps.DeleteFunc(open, func(fd int, _ bool) bool { return fd >= number(0) && (call.Args[1] == plan.AllFDs || fd <= number(1)) })
			case unix.SYS_DUP3:
				open[number(1)] = number(1) >= first && number(2) == 0
			case unix.SYS_FCNTL:
				if number(1) == unix.F_SETFD {
					delete(open, number(0))
				}
			case nsenter.Exec:
				var left []int
				for fd, is := range open {
					if is {
						left = append(left, fd)
					}
				}
				slices.Sort(left)
				want := []int{3, 4, 5, 6, 7, 8, 9}[:given]
				if !slices.Equal(left, want) {
					t.Errorf("%s: %v are open, want %v", name, left, want)
				}
			}
		}
	}
}
