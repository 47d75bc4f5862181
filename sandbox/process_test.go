package sandbox

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/podsh/podsh/sandbox/member"
	"github.com/podsh/podsh/sandbox/proc"
)

var printables = []struct{ text, want string }{
	{"nginx: master process", "nginx: master process"},
	{"größe ☃", "größe ☃"},
	{"\x1b]0;title\x07", `\x1b]0;title\a`},
	{"a\nb\tc\rd", `a\nb\tc\rd`},
	{"\u009b31m", `\u009b31m`},                 // the one-character form of ESC [
	{"user\u202egnp.exe", `user\u202egnp.exe`}, // right-to-left override
	{"\xff\xfe", `\xff\xfe`},
	{"\u00a0\u200b", `\u00a0\u200b`},
	{"\uFFFD", "\uFFFD"},
	{`'"\`, `'"\`},
}

func TestPrintable(t *testing.T) {
	for _, test := range printables {
		if got := proc.Printable(test.text); got != test.want {
			t.Errorf("%q: %q, not %q", test.text, got, test.want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	for _, test := range printables {
		f.Add(test.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := proc.Printable(text)
		if !utf8.ValidString(got) {
			t.Errorf("%q: %q is no UTF-8", text, got)
		}
		if strings.IndexFunc(got, func(r rune) bool { return !strconv.IsPrint(r) }) >= 0 {
			t.Errorf("%q: %q drives a terminal", text, got)
		}
	})
}

func TestProcesses(t *testing.T) {
	pod := handmade(t, newStore(t), "", "user", "pid", "mnt")
	enter(t, pod, `echo; exec sleep 1000`)
	eventually(t, "the sleep", func() bool { return slices.Equal(membersOf(t, pod), []string{"sleep"}) })
	processes, err := member.Processes(pod)
	if err != nil || len(processes) != 2 {
		t.Fatalf("%v, %v", processes, err)
	}
	holder, sleep := processes[0], processes[1]
	if holder.PID != pod.Holder.PID || holder.PodPID != 1 || !holder.Holder {
		t.Errorf("the pause: %+v", holder)
	}
	if sleep.PodPID != 2 || sleep.Holder || sleep.CommandLine() != "sleep 1000" || sleep.RSS == 0 || sleep.State == "" {
		t.Errorf("the member: %+v", sleep)
	}
	if sleep.UID == nil || *sleep.UID != 0 || sleep.HostUID != uint32(os.Geteuid()) {
		t.Errorf("its user: %+v", sleep)
	}
	if old := time.Since(sleep.Started); old < -time.Second || old > time.Minute {
		t.Errorf("it started %v ago", old)
	}
}

func TestAProcessWithoutArgumentsHasItsName(t *testing.T) {
	pod := handmade(t, newStore(t), "", "user", "pid")
	enter(t, pod, `echo; sh -c 'exit' & exec sleep 1000`) // which never takes its status
	eventually(t, "the zombie", func() bool {
		processes, err := member.Processes(pod)
		return err == nil && slices.ContainsFunc(processes, func(p proc.Process) bool {
			return p.State == "Z" && p.CommandLine() == "[sh]"
		})
	})
}
