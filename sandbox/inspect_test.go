package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestInspectAgreesWithTheKernel(t *testing.T) {
	pod := handmade(t, newStore(t), "web", "user", "pid", "mnt", "net")
	i, err := pod.Inspect()
	if err != nil {
		t.Fatal(err)
	}
	if i.Status != Running || i.PID != pod.Holder.PID || i.Processes == nil || *i.Processes != 1 || i.MembersBy != "pid" {
		t.Errorf("%+v", i)
	}
	for name, ns := range i.Namespaces {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", i.PID, name))
		if want := fmt.Sprintf("%s:[%d]", name, ns.Inode); err != nil || link != want || ns.Kind == "" {
			t.Errorf("%s: %+v, not %q", name, ns, link)
		}
	}
	if len(i.UIDMap) != 1 || i.UIDMap[0] != (IDMap{0, uint32(os.Geteuid()), 1}) {
		t.Errorf("uid map %v", i.UIDMap)
	}
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", i.PID))
	if err != nil || len(i.Mounts) != strings.Count(string(table), "\n") || i.Mounts[0].MountPoint != "/" {
		t.Errorf("%d mounts: %v", len(i.Mounts), err)
	}
	if !slices.Contains(i.Capabilities.Effective, "SYS_ADMIN") || i.RSS == 0 {
		t.Errorf("capabilities %v, rss %d", i.Capabilities, i.RSS)
	}
}

func TestInspectOfAPodThatHasEnded(t *testing.T) {
	pod := handmade(t, newStore(t), "web", "user", "pid")
	pod.UIDMap = []IDMap{{0, 1000, 1}}
	if _, err := pod.Stop(0); err != nil {
		t.Fatal(err)
	}
	i, err := pod.Inspect()
	if err != nil || i.Status != Exited || i.PID != 0 || *i.Processes != 0 || len(i.UIDMap) != 1 {
		t.Errorf("%+v, %v", i, err)
	}
	text, err := json.Marshal(i)
	if err != nil || !strings.Contains(string(text), `"pid":{"kind":"new"}`) || !strings.Contains(string(text), `"mounts":[]`) {
		t.Errorf("%s, %v", text, err)
	}
}
