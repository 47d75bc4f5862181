package sandbox

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/capability"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runc/libcontainer/specconv"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/container"
	"github.com/podsh/podsh/sandbox/disk"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/step"
)

var update = flag.Bool("update", false, "write the golden files anew")

// machineFacts are those of a made-up machine, the same on every real one.
func machineFacts() *plan.Facts {
	f := &plan.Facts{
		UID: 1000, GID: 1000, NewUIDMap: true, SubUIDs: []ids.Range{{Start: 100000, Count: 65536}}, SubGIDs: []ids.Range{{Start: 100000, Count: 65536}},
		OwnGIDs: []ids.Map{{Inside: 0, Outside: 0, Count: 1<<32 - 1}}, Kernel: plan.Version{Major: 6, Minor: 8}, LastCap: capability.CAP_CHECKPOINT_RESTORE, Keys: true, CgroupV2: true,
		Exe: plan.ExeFile{Path: "/usr/local/bin/podsh"}, Store: "/run/user/1000/podsh", Data: "/home/ada/.local/share",
		Namespaces: map[string]bool{}, Masked: []string{"/proc/kcore", "/sys/firmware"},
		MaskedFiles: map[string]bool{"/proc/kcore": true}, ReadOnly: []string{"/proc/sys"},
		Passwd: "root:x:0:0:root:/root:/bin/sh\n",
		Host: []rootfs.Entry{
			{Path: "/usr", Source: "/usr", IsDir: true}, {Path: "/bin", Link: "usr/bin"},
			{Path: "/etc", IsDir: true, Mode: 0o755}, {Path: "/tmp", IsDir: true, Mode: 0o777 | os.ModeSticky},
			{Path: "/etc/passwd", Source: "/etc/passwd"},
		},
		Mounts: []*mountinfo.Info{
			{Mountpoint: "/", Options: "rw,relatime"}, {Mountpoint: "/usr/local", Options: "rw,nosuid,noexec"},
		},
	}
	for _, ns := range spec.Namespaces {
		f.Namespaces[ns.Name] = true
	}
	return f
}

// TestGoldenPlans keeps the plans of a few pods, joins and containers in testdata, as people read them. After a change that
// is meant: go test ./sandbox -run Golden -update, and read the difference.
func TestGoldenPlans(t *testing.T) {
	for name, plan := range examplePlans(t) {
		var text strings.Builder
		if err := plan.Explain(&text); err != nil {
			t.Fatal(err)
		}
		golden(t, name, text.String())
	}
}

// examplePlans are plans of every kind.
func examplePlans(t *testing.T) map[string]step.Plan {
	plans := map[string]step.Plan{}
	for _, some := range []map[string]step.Plan{createPlans(t), joinPlans(t), runPlans(t)} {
		maps.Copy(plans, some)
	}
	return plans
}

func createPlans(t *testing.T) map[string]step.Plan {
	plans := map[string]step.Plan{}
	host := rootfs.Source{Kind: "host"}
	dir := rootfs.Source{Kind: "dir", Dir: "/srv/debian", Mode: "overlay"}
	for name, c := range map[string]struct {
		spec  spec.Spec
		facts func(*plan.Facts)
	}{
		"user": {spec.Spec{Name: "web", Rootfs: host}, func(*plan.Facts) {}},
		"one-id": {spec.Spec{Name: "web", Rootfs: host}, func(f *plan.Facts) {
			f.SubUIDs, f.SubGIDs, f.NoRanges = nil, nil, "/etc/subuid has no line for ada"
		}},
		"root": {spec.Spec{Name: "web", Rootfs: host}, func(f *plan.Facts) {
			f.UID, f.GID, f.Root, f.NewUIDMap = 0, 0, true, false
		}},
		"overlay":    {spec.Spec{Name: "web", Rootfs: dir, ReadOnly: true, Tmpfs: []rootfs.Tmpfs{{Destination: "/cache"}}}, func(*plan.Facts) {}},
		"linux-5.11": {spec.Spec{Name: "web", Rootfs: dir, KeepID: true}, func(f *plan.Facts) { f.Kernel = plan.Version{Major: 5, Minor: 11} }},
		"host-network": {spec.Spec{Name: "web", Rootfs: host, Namespaces: map[string]spec.Choice{"net": {Kind: "host"}, "pid": {Kind: "host"}},
			Volumes: []rootfs.Volume{{Source: "/home/ada/src", Destination: "/src", ReadOnly: true}}},
			func(f *plan.Facts) { f.Volumes = []bool{true} }},
		"clocks": {spec.Spec{Name: "web", Rootfs: host, Namespaces: map[string]spec.Choice{"time": {Kind: "new"}},
			Clocks: []spec.Clock{{Name: "boottime", Seconds: 86400}}}, func(*plan.Facts) {}},
		"publish": {spec.Spec{Name: "web", Rootfs: host, Net: spec.Net{Ports: parsePorts(t, "8080:80", "127.0.0.1:5353:53/udp")}},
			func(f *plan.Facts) { f.Net.IPv6 = true }},
		"outbound": {spec.Spec{Name: "web", Rootfs: host, Net: spec.Net{WayOut: spec.WayOutStack, Search: []string{"example.test"}}},
			func(f *plan.Facts) { f.Net.IPv6 = true }},
		"network": {spec.Spec{Name: "web", Rootfs: host, Net: spec.Net{Networks: []string{"app", "db"}, Ports: parsePorts(t, "8080:80")}},
			func(f *plan.Facts) {
				f.Net.Networks = []*network.Network{aNetwork("app", "10.89.0.0/24"), aNetwork("db", "10.90.0.0/28")}
				f.Net.Hub = &pod.Pod{ID: "ba9876543210", UIDMap: ids.RootMap(1000, f.SubUIDs), GIDMap: ids.RootMap(1000, f.SubGIDs), Holder: proc.ID{PID: 4711}, Namespaces: map[string]spec.Choice{"user": {Kind: "new"}, "net": {Kind: "new"}}}
			}},
	} {
		f := machineFacts()
		c.facts(f)
		if c.spec.Rootfs.Kind == "dir" {
			f.Host = nil
		}
		pod, _, err := plan.Resolve(&c.spec, f, "0123456789ab")
		if err != nil {
			t.Fatal(err)
		}
		pod.Upper = disk.UpperDir(pod, f)
		plans["create-"+name] = plan.Create(pod, f, chooseExe(pod, f))
	}
	return plans
}

func joinPlans(t *testing.T) map[string]step.Plan {
	plans := map[string]step.Plan{}
	f := machineFacts()
	p, _, err := plan.Resolve(&spec.Spec{Name: "web", Rootfs: rootfs.Source{Kind: "host"}}, f, "0123456789ab")
	if err != nil {
		t.Fatal(err)
	}
	p.Holder.PID = 4711
	for name, spec := range map[string]*spec.JoinSpec{
		"plain":    {Command: []string{"id", "-u"}},
		"terminal": {Command: []string{"sh"}, TTY: true, Term: "xterm", Workdir: "/srv", CapAdd: []string{"NET_ADMIN"}},
		"sockets":  {Command: []string{"serve"}, Listen: parseSockets(t, "8080", "127.0.0.1:53/udp=dns")},
		"only":     {Command: []string{"ss", "-ltn"}, Only: []string{"net"}, HostEnv: []string{"PATH=/bin"}},
	} {
		who := pod.Identity{Home: "/root", Name: "root", Shell: "/bin/sh"}
		plans["join-"+name] = plan.Join(p, spec, plan.JoinFacts{Who: who, Last: f.LastCap, Held: capability.ListKnown(), Keys: true})
	}
	return plans
}

func runPlans(t *testing.T) map[string]step.Plan {
	plans := map[string]step.Plan{}
	img := &image.Image{ID: "sha256:1d", Config: image.Config{
		Entrypoint: []string{"/entry"}, Cmd: []string{"serve"}, Env: []string{"PATH=/usr/bin:/bin", "LANG=C"}, WorkingDir: "/srv",
		Volumes: map[string]struct{}{"/var/lib/app": {}},
	}}
	layers := []string{"/store/layers/below", "/store/layers/above"}
	for name, wanted := range map[string]*spec.ContainerSpec{
		"image": {Image: "app"},
		"private": {Image: "app", Private: []string{"pid", "ipc", "uts", "net"}, Hostname: "own", TTY: true, Stdin: true,
			Unmask: []string{"all"}, CapAdd: []string{"NET_ADMIN"}},
		"sockets": {Image: "app", Env: []string{"LISTEN_FDS=7"}, Listen: parseSockets(t, "8080=web", "9000", "9001", "9002", "9003", "9004", "9005/udp")},
		"narrow": {Image: "app", ReadOnly: true, Tmpfs: []rootfs.Tmpfs{{Destination: "/cache"}}, User: "ann", CapDrop: []string{"ALL"}, Detached: true,
			Volumes:    []rootfs.Volume{{Source: "/home/ada/conf", Destination: "/etc/app", ReadOnly: true}},
			PodVolumes: []spec.PodVolume{{Name: "data", Destination: "/data"}}, Ulimits: []spec.Ulimit{{Name: "nofile", Soft: 64, Hard: 128}}},
		"root":            {Image: "app"},
		"root-linux-5.11": {Image: "app"},
	} {
		f := machineFacts()
		if strings.HasPrefix(name, "root") {
			f.UID, f.GID, f.Root, f.NewUIDMap = 0, 0, true, false
		}
		if strings.HasSuffix(name, "5.11") {
			f.Kernel = plan.Version{Major: 5, Minor: 11}
		}
		p, _, err := plan.Resolve(&spec.Spec{Name: "web", Rootfs: rootfs.Source{Kind: "host"}}, f, "0123456789ab")
		if err != nil {
			t.Fatal(err)
		}
		p.Root, p.Holder.PID = f.Store, 4711
		p.Upper = "/home/ada/.local/share/podsh/upper/0123456789ab" // where its volumes are
		c, err := container.PlanContainer(p, wanted, img, layers)
		if err != nil {
			t.Fatal(err)
		}
		c.ID, c.Name, c.Disk = "ba9876543210", "app", "/home/ada/.local/share/podsh/upper/ba9876543210"
		f.Volumes = []bool{true, true} // folders, where there are any
		f.Host, f.Dir = nil, plan.DirFacts{Missing: map[string]bool{}, Files: map[string]bool{"/etc/hosts": true}}
		who := pod.Identity{Home: "/root", Name: "root", Shell: "/bin/sh"}
		if wanted.User != "" {
			who = pod.Identity{UID: 1000, GID: 1000, Home: "/home/ann", Name: "ann", Shell: "/bin/sh"}
		}
		view := container.View(c)
		view.Confine(&who)
		member := &plan.ContainerFacts{Container: c, View: view, Who: who, Join: plan.JoinFacts{Who: who, Last: f.LastCap, Held: capability.ListKnown(), Keys: true},
			Etc: []plan.EtcFile{{Path: "/etc/hosts", Text: "127.0.0.1\tlocalhost\n"}}, Nulls: []int{0}, Rows: 24, Columns: 80, Term: "xterm",
			Owners: map[string]plan.Owner{"/data": {UID: 33, GID: 33, Mode: 0o750}}}
		plans["run-"+name] = plan.Container(f, member)
		if name == "image" { // the pod's resolver follows the host's
			member.Etc = append(member.Etc, plan.EtcFile{Path: "/etc/resolv.conf", Text: "nameserver 10.0.2.3\n", Shared: true})
			plans["run-follows"] = plan.Container(f, member)
		}
	}
	return plans
}

func parseSockets(t *testing.T, texts ...string) []spec.Socket {
	var sockets []spec.Socket
	for _, text := range texts {
		s, err := spec.ParseSocket(text)
		if err != nil {
			t.Fatal(err)
		}
		sockets = append(sockets, s)
	}
	return sockets
}

func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s differs (go test -run Golden -update writes it anew):\n%s", file, text)
	}
}

// TestPlansCanBeEncoded: every argument of every call is of a kind that nsenter knows.
func TestPlansCanBeEncoded(t *testing.T) {
	plans := examplePlans(t)
	f := machineFacts()
	pod, _, err := plan.Resolve(&spec.Spec{Rootfs: rootfs.Source{Kind: "host"}}, f, "0123456789ab")
	if err != nil {
		t.Fatal(err)
	}
	for _, exe := range []plan.ExeKind{plan.ExePlain, plan.ExeMount, plan.ExeMemfd} {
		plans[fmt.Sprintf("exe %v", exe)] = plan.Create(pod, f, exe)
	}
	for name, steps := range plans {
		if _, err := nsenter.Encode(steps.Calls(), 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, call := range steps.Calls() {
			if step.CallNames[call.Nr] == "" {
				t.Errorf("%s: system call %d has no name in callNames", name, call.Nr)
			}
		}
	}
}

// TestAsRuncMasks: what a pod hides is what runc's own default configuration hides.
func TestAsRuncMasks(t *testing.T) {
	spec := specconv.Example()
	for what, lists := range map[string][2][]string{
		"masked": {spec.Linux.MaskedPaths, rootfs.Masked}, "read-only": {spec.Linux.ReadonlyPaths, rootfs.ReadOnly},
	} {
		for _, path := range lists[0] {
			if !slices.Contains(lists[1], path) {
				t.Errorf("runc has %s %s, podsh has not", what, path)
			}
		}
	}
}
