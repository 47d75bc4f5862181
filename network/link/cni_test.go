package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/podsh/podsh/network/testns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// realPlugins returns a folder with the CNI project's own plugins: $PODSH_CNI_PLUGINS, or built here from the module
// cache. It is called before a test goes inside, where it finds the folder in the environment.
func realPlugins(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("PODSH_CNI_PLUGINS"); dir != "" {
		return dir
	}
	if err := build(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PODSH_CNI_PLUGINS", built)
	return built
}

// built is where build puts the plugins; TestMain removes it.
var built string

var build = sync.OnceValue(func() (err error) {
	if built, err = os.MkdirTemp("", "podsh-plugins"); err != nil {
		return err
	}
	args := []string{"build", "-o", built}
	for _, plugin := range []string{"main/bridge", "ipam/host-local", "meta/portmap", "meta/firewall"} {
		args = append(args, "github.com/containernetworking/plugins/plugins/"+plugin)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("build the plugins: %w: %s", err, out)
	}
	return nil
})

func cniNetwork(plugins ...string) Network {
	list := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "theirs", "plugins": [%s]}`, strings.Join(plugins, ", "))
	return Network{Name: "own", Conflist: json.RawMessage(list)}
}

// script writes a plugin in sh, which is told what to do by $CNI_COMMAND.
func script(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestConflist(t *testing.T) {
	plugins := realPlugins(t)
	if !testns.Inside(t) {
		return
	}
	p := place(t)
	p.PluginPath = []string{plugins}
	// Plugins keep what they know of iptables below /run.
	if err := unix.Mount("none", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	n := cniNetwork(`{"type": "bridge", "bridge": "cni7", "isDefaultGateway": true, "ipMasq": true, "ipam": {"type": "host-local",
		"ranges": [[{"subnet": "10.89.7.0/24"}], [{"subnet": "fd00:89:7::/64"}]]}}`,
		`{"type": "portmap", "capabilities": {"portMappings": true}}`, `{"type": "firewall"}`)
	if err := p.CheckPlugins(n); err != nil {
		t.Error(err)
	}
	one, two := newPod(t, "one", "eth0"), newPod(t, "two", "eth0")
	a, b := attach(t, p, n, one), attach(t, p, n, two)
	if got := fmt.Sprintf("%s %s %v %v %v", a.Network, a.Interface, a.Addresses, a.Gateways, a.Default); got != "own eth0 [10.89.7.2/24 fd00:89:7::2/64] [10.89.7.1 fd00:89:7::1] true" {
		t.Error(got)
	}
	if a.MAC == "" || !strings.HasPrefix(a.HostInterface, "veth") || !strings.Contains(string(a.CNIResult), `"cniVersion":"1.0.0"`) {
		t.Errorf("%+v", a)
	}
	for i := range 2 {
		if seen, err := reach(t, one.NetNS, two.NetNS, b.Addresses[i].Addr()); err != nil || seen != a.Addresses[i].Addr() {
			t.Errorf("%v, %v", seen, err)
		}
	}
	if _, err := p.Attach(t.Context(), n, one); !errors.Is(err, ErrAttached) {
		t.Error(err)
	}
	var inUse *InUseError
	if err := p.Remove(t.Context(), n); !errors.As(err, &inUse) || len(inUse.Pods) != 2 {
		t.Error(err)
	}
	two.NetNS.Close()
	two.NetNS = nil
	for range 2 {
		for _, pod := range []Pod{one, two} {
			if err := p.Detach(t.Context(), n, pod, nil); err != nil {
				t.Error(err)
			}
		}
	}
	if leased, err := p.Leases(n); err != nil || len(leased) != 0 {
		t.Errorf("%v, %v", leased, err)
	}
	if err := p.Remove(t.Context(), n); err != nil {
		t.Error(err)
	}
	if _, err := netlink.LinkByName(a.HostInterface); err == nil { // the other's goes when the kernel comes to it
		t.Errorf("%s is still there", a.HostInterface)
	}
}

// What podsh leases is what host-local finds leased, and the other way round.
func TestLeasesAreHostLocals(t *testing.T) {
	plugins := realPlugins(t)
	if !testns.Inside(t) {
		return
	}
	p := place(t)
	attach(t, p, blue, newPod(t, "one", "eth0"))
	p.PluginPath = []string{plugins}
	n := cniNetwork(`{"type": "bridge", "bridge": "cni7", "ipam": {"type": "host-local",
		"ranges": [[{"subnet": "10.89.1.0/24"}], [{"subnet": "fd00:89:1::/64"}]]}}`)
	n.Name = blue.Name
	two := newPod(t, "two", "eth0")
	b := attach(t, p, n, two)
	c := attach(t, p, blue, newPod(t, "three", "eth0"))
	if fmt.Sprint(b.Addresses, c.Addresses) != "[10.89.1.3/24 fd00:89:1::3/64] [10.89.1.4/24 fd00:89:1::4/64]" {
		t.Error(b.Addresses, c.Addresses)
	}
	if err := p.release(blue, two, nil); err != nil {
		t.Error(err)
	}
	if leased, err := p.Leases(blue); err != nil || len(leased) != 4 || leased[netip.MustParseAddr("10.89.1.2")] != "one" {
		t.Errorf("%v, %v", leased, err)
	}
}

func TestNoPlugin(t *testing.T) {
	p := Place{LeaseDir: t.TempDir(), CacheDir: t.TempDir(), PluginPath: []string{"/nowhere", t.TempDir()}}
	script(t, p.PluginPath[1], "there", "exit 1")
	for name, n := range map[string]Network{
		"absent": cniNetwork(`{"type": "absent"}`),
		"ipam":   cniNetwork(`{"type": "there", "ipam": {"type": "ipam"}}`),
	} {
		var none *NoPluginError
		err := p.CheckPlugins(n)
		if !errors.As(err, &none) || none.Plugin != name || err.Error() != fmt.Sprintf("network \"own\": no CNI plugin %q in /nowhere, %s", name, p.PluginPath[1]) {
			t.Error(err)
		}
		_, err = p.Attach(t.Context(), n, Pod{ID: "one", NetNS: standing(t), Interface: "eth0"})
		if !errors.As(err, &none) {
			t.Error(err)
		}
	}
}

// asked is what a script wrote down that it was asked.
func asked(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "asked"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(strings.ReplaceAll(string(text), "\n", " "))
}

func TestFailingPlugin(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"json":    {`echo '{"cniVersion": "1.0.0", "code": 107, "msg": "no cable", "details": "see the floor"}'; exit 1`, "no cable; see the floor"},
		"stderr":  {`echo no cable >&2; exit 3`, "stderr: exit status 3: no cable"},
		"rubbish": {`echo rubbish`, "rubbish"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := Place{LeaseDir: t.TempDir(), CacheDir: t.TempDir(), PluginPath: []string{dir}}
			script(t, dir, name, fmt.Sprintf("echo $CNI_COMMAND $CNI_IFNAME >>%s/asked\n%s\n", dir, c.text))
			pod := Pod{ID: "one", NetNS: standing(t), Interface: "eth0"}
			_, err := p.Attach(t.Context(), cniNetwork(fmt.Sprintf(`{"type": %q}`, name)), pod)
			if err == nil || !strings.Contains(err.Error(), `network "own": `) || name != "rubbish" && !strings.HasSuffix(err.Error(), c.want) {
				t.Error(err)
			}
			var told *types.Error
			if name == "json" && (!errors.As(err, &told) || told.Code != 107) {
				t.Error(err)
			}
			if got := asked(t, dir); got != "ADD eth0 DEL eth0" {
				t.Error(got)
			}
		})
	}
}

// Leases go with the namespace, even if the plugin is gone as well.
func TestDetachWithoutPlugin(t *testing.T) {
	p := Place{LeaseDir: t.TempDir(), CacheDir: t.TempDir()}
	n := cniNetwork(`{"type": "absent", "ipam": {"type": "host-local"}}`)
	leases, err := p.openLeases(n)
	if err != nil {
		t.Fatal(err)
	}
	defer leases.Close()
	pod := Pod{ID: "one", Interface: "eth0"}
	if _, err := leases.take(Network{Subnets: blue.Subnets}, pod); err != nil {
		t.Fatal(err)
	}
	var none *NoPluginError
	if err := p.Detach(t.Context(), n, pod, nil); !errors.As(err, &none) {
		t.Error(err)
	}
	if leased, err := p.Leases(n); err != nil || len(leased) != 0 {
		t.Errorf("%v, %v", leased, err)
	}
}

func TestHangingPlugin(t *testing.T) {
	dir := t.TempDir()
	p := Place{LeaseDir: t.TempDir(), CacheDir: t.TempDir(), PluginPath: []string{dir}}
	// Its child holds the pipes, and has the longer breath.
	script(t, dir, "hang", fmt.Sprintf("echo $CNI_COMMAND >>%[1]s/asked\n[ $CNI_COMMAND = DEL ] && exit\nsleep 60 & echo $! >%[1]s/child; wait", dir))
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := p.Attach(ctx, cniNetwork(`{"type": "hang"}`), Pod{ID: "one", NetNS: standing(t), Interface: "eth0"})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "hang gave no answer in ") {
		t.Error(err)
	}
	if got := asked(t, dir); got != "ADD DEL" {
		t.Error(got)
	}
	text, err := os.ReadFile(filepath.Join(dir, "child"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	child, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return // gone
	}
	defer unix.Close(child)
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(child), Events: unix.POLLIN}}, 1000); n != 1 {
		t.Errorf("its child lives: %v", err)
	}
}
