package sandbox

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
	"github.com/podsh/podsh/sandbox/wire"
)

func parsePorts(t *testing.T, texts ...string) (ports []network.Port) {
	t.Helper()
	for _, text := range texts {
		more, err := network.ParsePorts(text)
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, more...)
	}
	return ports
}

func aNetwork(name, subnet string) *network.Network {
	return &network.Network{Name: name, Bridge: "podsh-" + name, Subnets: []netip.Prefix{netip.MustParsePrefix(subnet)}}
}

func TestParseEndpoints(t *testing.T) {
	ip := netip.MustParseAddr
	for text, want := range map[string]struct {
		networks  []string
		endpoints map[string]spec.Endpoint
	}{
		"front:ip=10.89.0.9":                {[]string{"front"}, map[string]spec.Endpoint{"front": {IPs: []netip.Addr{ip("10.89.0.9")}}}},
		"front:alias=a,alias=b.c,x":         {[]string{"front", "x"}, map[string]spec.Endpoint{"front": {Aliases: []string{"a", "b.c"}}}},
		"x,front:ip=fd00::1,ip=10.0.0.1":    {[]string{"x", "front"}, map[string]spec.Endpoint{"front": {IPs: []netip.Addr{ip("fd00::1"), ip("10.0.0.1")}}}},
		"a:mac=02:42:AC:11:00:02,b:alias=c": {[]string{"a", "b"}, map[string]spec.Endpoint{"a": {MAC: "02:42:ac:11:00:02"}, "b": {Aliases: []string{"c"}}}},
	} {
		_, n, err := spec.ParseNet(text)
		if err != nil || !slices.Equal(n.Networks, want.networks) || !reflect.DeepEqual(n.Endpoints, want.endpoints) {
			t.Errorf("%s: %+v, %v", text, n, err)
		}
	}
	for _, text := range []string{"ip=10.0.0.1", "a:", "a:ip", "a:ip=", "a:ip=::ffff:10.0.0.1", "a:ip=fe80::1%eth0", "a:ip=10.0.0.1,ip=10.0.0.2", "a:mac=1",
		"a:mac=01:00:00:00:00:00", "a:mac=00:00:00:00:00:00", "a:alias=-.", "a:alias=a b", "a:interface=eth7", "a:=x", ":ip=10.0.0.1", "host:ip=10.0.0.1"} {
		if _, n, err := spec.ParseNet(text); !errors.Is(err, fault.ErrInvalid) || len(fault.Hints(err)) == 0 {
			t.Errorf("%q was taken: %+v, %v", text, n, err)
		}
	}
}

func TestNetContradictions(t *testing.T) {
	port := parsePorts(t, "8080:80")
	for what, spec := range map[string]*spec.Spec{
		"-p --net host":        {Net: spec.Net{Ports: port}, Namespaces: map[string]spec.Choice{"net": {Kind: "host"}}},
		"-p --net none":        {Net: spec.Net{Ports: port, Down: true}},
		"--host-access":        {Net: spec.Net{HostAccess: true}},
		"the same port":        {Net: spec.Net{Ports: parsePorts(t, "8080:80", "127.0.0.1:8080:81")}},
		"--dns-search 'a b'":   {Net: spec.Net{Search: []string{"a b"}}},
		"--dns-search a..b":    {Net: spec.Net{Search: []string{"a..b"}}},
		"--dns-search . and b": {Net: spec.Net{Search: []string{".", "b"}}},
		"--dns-option":         {Net: spec.Net{Options: []string{"ndots:2 rotate"}}},
		"four servers":         {Net: spec.Net{DNS: make([]netip.Addr, 4)}},
		"--userns pod and net": {Net: spec.Net{Hub: true}, Namespaces: map[string]spec.Choice{"user": {Kind: "pod", Value: "x"}}},
	} {
		if err := spec.Validate(); !errors.Is(err, fault.ErrInvalid) || len(fault.Hints(err)) == 0 {
			t.Errorf("%s: %v", what, err)
		}
	}
	fine := &spec.Spec{Net: spec.Net{Ports: parsePorts(t, "8080:80", "8080:80/udp", "0:80", "0:81", "127.0.0.1:81:1", "127.0.0.2:81:1")}}
	if err := fine.Validate(); err != nil {
		t.Error(err)
	}
}

func storeFor(t *testing.T) *store.Store {
	t.Helper()
	t.Setenv("PODSH_ROOT", filepath.Join(t.TempDir(), "pods"))
	store, err := store.OpenStore()
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestNetworksAreChosenApart(t *testing.T) {
	store := storeFor(t)
	var networks []*network.Network
	for _, name := range []string{"a", "b", "c"} {
		n, err := wire.CreateNetwork(store, &spec.NetworkSpec{Name: name, IPv6: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(n.Subnets) != 2 || !n.Gateway().Is4() {
			t.Errorf("%+v", n)
		}
		for _, other := range networks {
			if wire.Overlapping(n.Subnets[0], []*network.Network{other}) != nil || wire.Overlapping(n.Subnets[1], []*network.Network{other}) != nil || n.Bridge == other.Bridge {
				t.Errorf("%+v and %+v", n, other)
			}
		}
		networks = append(networks, n)
	}
	if _, err := wire.CreateNetwork(store, &spec.NetworkSpec{Name: "a"}); !errors.Is(err, fault.ErrNameTaken) {
		t.Errorf("a name twice: %v", err)
	}
	if _, err := wire.CreateNetwork(store, &spec.NetworkSpec{Name: "d", Subnets: networks[0].Subnets[:1]}); err == nil || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("a subnet twice: %v", err)
	}
	if _, err := store.Network("bb"); !errors.Is(err, fault.ErrNoNetwork) || !strings.Contains(fault.Hints(err)[0], `did you mean "b"`) {
		t.Errorf("an unknown network: %v %v", err, fault.Hints(err))
	}
}

func TestNetworkSpecs(t *testing.T) {
	prefix := netip.MustParsePrefix
	for what, spec := range map[string]*spec.NetworkSpec{
		"no name": {}, "a word of --net": {Name: "host"}, "a temporary": {Name: "a.new"}, "taken": {Name: "cache"}, "a slash": {Name: "a/b"},
		"bits":        {Name: "a", Subnets: []netip.Prefix{prefix("10.1.2.3/24")}},
		"too small":   {Name: "a", Subnets: []netip.Prefix{prefix("10.1.2.0/30")}},
		"loopback":    {Name: "a", Subnets: []netip.Prefix{prefix("127.0.0.0/24")}},
		"ours":        {Name: "a", Subnets: []netip.Prefix{prefix("10.0.0.0/16")}},
		"two":         {Name: "a", Subnets: []netip.Prefix{prefix("10.1.0.0/24"), prefix("10.2.0.0/24")}},
		"two of IPv6": {Name: "a", Subnets: []netip.Prefix{prefix("fd00::/64"), prefix("fd01::/64")}},
		"neither":     {Name: "a", NoIPv4: true},
		"resolver":    {Name: "a", Subnets: []netip.Prefix{prefix("fd70:6f64:7368:ffff::/64")}},
		"both":        {Name: "a", Internal: true, Conflist: []byte("{}")},
	} {
		if err := spec.Validate(); !errors.Is(err, fault.ErrInvalid) || len(fault.Hints(err)) == 0 {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What killed commands leave of a hub does not stay, and does not keep the next one from working.
func TestForgetHub(t *testing.T) {
	s := storeFor(t)
	if hub, err := s.Hub(); hub != nil || err != nil {
		t.Fatalf("%v, %v", hub, err)
	}
	if err := files.WriteText(s.Below(store.HubFile), "0123456789ab"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(s.Below("leases", "app"), 0o700); err != nil {
		t.Fatal(err)
	}
	if hub, err := s.Hub(); hub != nil || err != nil {
		t.Errorf("a hub that never was: %v, %v", hub, err)
	}
	if err := ReleaseHub(s); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{store.HubFile, "leases"} {
		if files.Exists(s.Below(left)) {
			t.Errorf("%s is left", left)
		}
	}
}
