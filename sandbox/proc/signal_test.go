package proc

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
)

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]unix.Signal{
		"TERM": unix.SIGTERM, "SIGTERM": unix.SIGTERM, "sigterm": unix.SIGTERM, "hup": unix.SIGHUP, "9": unix.SIGKILL,
		"RTMIN": 34, "SIGRTMIN+3": 37, "rtmin+30": 64, "RTMAX": 64, "RTMAX-1": 63, "64": 64, "CHLD": unix.SIGCHLD,
		"cld": unix.SIGCHLD, "SIGIOT": unix.SIGABRT, "SIGPOLL": unix.SIGIO,
	} {
		if got, err := ParseSignal(text); got != want || err != nil {
			t.Errorf("%s: %d, not %d: %v", text, got, want, err)
		}
	}
	for text, near := range map[string]string{
		"TREM": "TERM", "SIGKIL": "KILL", "USR3": "USR1", "": "", "0": "", "65": "", "-9": "", "RTMIN+31": "", "RTMIN-1": "",
		"RTMIN+": "", "RTMINx": "", "RTMIN1": "", "RTMAX+1": "", "SIG": "", "TERM ": "TERM", "\x1b": "",
	} {
		got, err := ParseSignal(text)
		if err == nil {
			t.Errorf("%q is taken for %d", text, got)
			continue
		}
		if hint := strings.Join(fault.Hints(err), " "); near != "" && !strings.Contains(hint, "did you mean "+near) {
			t.Errorf("%q: %q", text, hint)
		}
	}
}

func TestImageSignal(t *testing.T) {
	for text, want := range map[string]unix.Signal{"": unix.SIGTERM, "SIGQUIT": unix.SIGQUIT, "3": unix.SIGQUIT, "SIGRTMIN+3": 37, "rtmax-1": 63} {
		if got, err := ImageSignal(text); got != want || err != nil {
			t.Errorf("%q: %d, not %d: %v", text, got, want, err)
		}
	}
	for _, text := range []string{"SIGFOO", "0", "65", "-1", "TERM KILL"} {
		if got, err := ImageSignal(text); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q is taken for %d: %v", text, got, err)
		}
	}
}

func FuzzParseSignal(f *testing.F) {
	for _, text := range []string{"TERM", "SIGRTMIN+3", "RTMAX-1", "9", "RTMIN+-1", "sigsig"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if sig, err := ParseSignal(text); err == nil && (sig < 1 || sig > 64) {
			t.Errorf("%q: %d", text, sig)
		}
	})
}

func TestSignalNames(t *testing.T) {
	names := SignalNames()
	for _, name := range []string{"HUP", "TERM", "SYS", "RTMAX"} {
		if !slices.Contains(names, name) {
			t.Errorf("no %s", name)
		}
	}
	for _, name := range names {
		if _, err := ParseSignal(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
