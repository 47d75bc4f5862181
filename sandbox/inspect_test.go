package sandbox_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
	"github.com/podsh/podsh/sandbox/view"
)

func TestInspectAgreesWithTheKernel(t *testing.T) {
	p := sandbox.Handmade(t, sandbox.NewStore(t), "web", "user", "pid", "mnt", "net")
	i, err := view.Inspect(p)
	if err != nil {
		t.Fatal(err)
	}
	if i.Status != pod.Running || i.PID != p.Holder.PID || i.Processes == nil || *i.Processes != 1 || i.MembersBy != "pid" {
		t.Errorf("%+v", i)
	}
	for name, ns := range i.Namespaces {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", i.PID, name))
		if want := fmt.Sprintf("%s:[%d]", name, ns.Inode); err != nil || link != want || ns.Kind == "" {
			t.Errorf("%s: %+v, not %q", name, ns, link)
		}
	}
	if len(i.UIDMap) != 1 || i.UIDMap[0] != (ids.Map{Inside: 0, Outside: uint32(os.Geteuid()), Count: 1}) {
		t.Errorf("uid map %v", i.UIDMap)
	}
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", i.PID))
	if err != nil || len(i.Mounts) != strings.Count(string(table), "\n") || i.Mounts[0].MountPoint != "/" {
		t.Errorf("%d mounts: %v", len(i.Mounts), err)
	}
	if n, err := json.Marshal(i.Network); err != nil ||
		string(n) != `{"addresses":[],"ports":[],"networks":[],"helper":null,"way_out":null,"resolver":[],"limits":[],"warnings":[]}` {
		t.Errorf("network %s: %v", n, err)
	}
	if !slices.Contains(i.Capabilities.Effective, "SYS_ADMIN") || i.RSS == 0 {
		t.Errorf("capabilities %v, rss %d", i.Capabilities, i.RSS)
	}
}

// TestInspectWithoutAHub: what the hub's helper would say is lost, the rest is there.
func TestInspectWithoutAHub(t *testing.T) {
	p := sandbox.Handmade(t, sandbox.NewStore(t), "web", "user", "pid", "net")
	p.Hub = "0123456789ab"
	port := network.Port{HostPort: 8080, PodPort: 80, Protocol: "tcp"}
	state := &pod.NetState{Ports: []network.Port{port}, Attachments: []network.Attachment{{Network: "front"}}, Served: true}
	if err := store.SaveNet(p, state); err != nil {
		t.Fatal(err)
	}
	i, err := view.Inspect(p)
	if err != nil {
		t.Fatal(err)
	}
	n := i.Network
	if len(n.Ports) != 1 || n.Ports[0].Port != port || n.Ports[0].Pod != p.ID || len(n.Networks) != 1 || n.Helper != nil {
		t.Errorf("%+v", n)
	}
	if len(n.Warnings) != 1 || !strings.Contains(n.Warnings[0], "the hub") {
		t.Errorf("warnings %q", n.Warnings)
	}
	m, err := view.Draw([]*pod.Pod{p})
	if err != nil || len(m.Residents) != 2 || !slices.Equal(m.Residents[1].Ports, state.Ports) || !slices.Equal(m.Residents[1].Networks, []string{"front"}) {
		t.Errorf("%+v, %v", m.Residents, err)
	}
}

func TestInspectOfAPodThatHasEnded(t *testing.T) {
	p := sandbox.Handmade(t, sandbox.NewStore(t), "web", "user", "pid")
	p.UIDMap = []ids.Map{{Inside: 0, Outside: 1000, Count: 1}}
	if _, err := sandbox.Stop(p, 0); err != nil {
		t.Fatal(err)
	}
	i, err := view.Inspect(p)
	if err != nil || i.Status != pod.Exited || i.PID != 0 || *i.Processes != 0 || len(i.UIDMap) != 1 {
		t.Errorf("%+v, %v", i, err)
	}
	text, err := json.Marshal(i)
	if err != nil || !strings.Contains(string(text), `"pid":{"kind":"new"}`) || !strings.Contains(string(text), `"mounts":[]`) {
		t.Errorf("%s, %v", text, err)
	}
}
