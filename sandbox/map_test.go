package sandbox_test

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/podsh/podsh/sandbox"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/view"
)

// lsns is what util-linux says of the namespaces of a process: its inodes by kind.
func lsns(t *testing.T, pid int) map[string]uint64 {
	t.Helper()
	out, err := exec.Command("lsns", "--noheadings", "--raw", "--output", "TYPE,NS", "--task", strconv.Itoa(pid)).Output()
	if err != nil {
		t.Fatalf("lsns: %v", err)
	}
	inodes := map[string]uint64{}
	for line := range strings.Lines(string(out)) {
		kind, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		inodes[kind], _ = strconv.ParseUint(number, 10, 64)
	}
	return inodes
}

func TestDrawAgreesWithLsns(t *testing.T) {
	store := sandbox.NewStore(t)
	web := sandbox.Handmade(t, store, "web", "user", "pid", "net")
	ended := sandbox.Handmade(t, store, "ended", "user")
	if _, err := sandbox.Stop(ended, 0); err != nil {
		t.Fatal(err)
	}
	m, err := view.Draw([]*pod.Pod{web, ended})
	if err != nil || len(m.Residents) != 2 {
		t.Fatalf("%v, %v", m, err)
	}
	for r, pid := range map[*view.Resident]int{m.Residents[0]: os.Getpid(), m.Residents[1]: web.Holder.PID} {
		want := lsns(t, pid)
		if len(want) != len(r.Namespaces) {
			t.Errorf("%s: %v, not %v", r.Name, r.Namespaces, want)
		}
		for kind, ns := range r.Namespaces {
			if want[kind] != ns.Inode {
				t.Errorf("%s: %s %d, not %d", r.Name, kind, ns.Inode, want[kind])
			}
		}
	}
	host, pod := m.Residents[0].Namespaces, m.Residents[1].Namespaces
	if pod["net"].Owner != pod["user"].Inode || pod["user"].Owner != host["user"].Inode {
		t.Errorf("owners: %+v", pod)
	}
	if len(pod["net"].With) != 0 || !slices.Equal(pod["uts"].With, []string{view.HostName}) {
		t.Errorf("sharing: %+v", pod)
	}
}
