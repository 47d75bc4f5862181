package proc

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
)

// RtMin and RtMax are the first and the last of the real-time signals that glibc leaves to programs, signal(7); the kernel's begin with 32.
const RtMin, RtMax = 34, 64

// otherNames are names that package unix has not.
var otherNames = map[string]unix.Signal{"CLD": unix.SIGCHLD, "IOT": unix.SIGABRT, "POLL": unix.SIGIO, "UNUSED": unix.SIGSYS}

// ParseSignal reads TERM, SIGTERM, 15, RTMIN+1 or RTMAX-1, in letters of any size.
func ParseSignal(text string) (unix.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil && 0 < n && n <= RtMax {
		return unix.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	if sig, ok := otherNames[name]; ok {
		return sig, nil
	}
	for base, n := range map[string]int{"RTMIN": RtMin, "RTMAX": RtMax} {
		if offset, ok := strings.CutPrefix(name, base); ok {
			if offset != "" {
				by, err := strconv.Atoi(offset)
				if n += by; err != nil || offset[0] != '+' && offset[0] != '-' {
					continue
				}
			}
			if RtMin <= n && n <= RtMax {
				return unix.Signal(n), nil
			}
		}
	}
	hint := "names such as TERM or SIGTERM, numbers from 1 to 64, RTMIN+N: signal(7)"
	if near := fault.Nearest(name, SignalNames()); near != "" {
		hint = fmt.Sprintf("did you mean %s? %s", near, hint)
	}
	return 0, fault.New(fault.ErrInvalid, []string{hint}, "no signal %q", text)
}

// SignalNames lists the signals that have a name, without SIG.
func SignalNames() []string {
	var names []string
	for n := unix.Signal(1); n < RtMin; n++ {
		if name := unix.SignalName(n); name != "" {
			names = append(names, strings.TrimPrefix(name, "SIG"))
		}
	}
	return append(names, "RTMIN", "RTMAX")
}

// ImageSignal is the signal that ends a container as its image says.
func ImageSignal(text string) (unix.Signal, error) {
	if text == "" {
		return unix.SIGTERM, nil
	}
	sig, err := ParseSignal(text)
	if err != nil {
		return 0, fault.New(fault.ErrInvalid, []string{"--stop-signal TERM, or another one, in its place"}, "the image wants to be stopped by %q, which is no signal", text)
	}
	return sig, nil
}
