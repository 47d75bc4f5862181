package spec

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runc/libcontainer/capabilities"

	"github.com/podsh/podsh/sandbox/fault"
)

func TestParseNet(t *testing.T) {
	for text, want := range map[string]struct {
		kind string
		net  Net
	}{
		"new": {"new", Net{}}, "host": {"host", Net{}}, "pod:web": {"pod", Net{}}, "path:/proc/1/ns/net": {"path", Net{}},
		"none": {"new", Net{Down: true}}, "hub": {"new", Net{Hub: true}},
		"outbound": {"new", Net{WayOut: WayOutStack}}, "outbound:pasta": {"new", Net{WayOut: WayOutPasta}},
		"outbound:slirp4netns": {"new", Net{WayOut: WayOutSlirp}},
		"app":                  {"new", Net{Networks: []string{"app"}}}, "app,db": {"new", Net{Networks: []string{"app", "db"}}},
	} {
		choice, net, err := ParseNet(text)
		if err != nil || choice.Kind != want.kind || net.Down != want.net.Down || net.Hub != want.net.Hub || net.WayOut != want.net.WayOut ||
			!slices.Equal(net.Networks, want.net.Networks) {
			t.Errorf("%s: %+v, %+v, %v", text, choice, net, err)
		}
	}
	for _, text := range []string{"", "outbound:", "outbound:tor", "pod:", "path:", "app,", ",app", "app,app", "app,host", "a b", "-x", "default", "hub,app", "../x"} {
		if _, _, err := ParseNet(text); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%q was taken: %v", text, err)
		}
	}
}

func TestOutboundSubnets(t *testing.T) {
	for text, want := range map[string]string{
		"outbound":                         "[10.0.2.100/24 fd70:6f64:7368::100/64] [10.0.2.2 fd70:6f64:7368::2] [10.0.2.3 fd70:6f64:7368::3]",
		"outbound:subnet=10.5.0.0/24":      "[10.5.0.100/24 fd70:6f64:7368::100/64] [10.5.0.2 fd70:6f64:7368::2] [10.5.0.3 fd70:6f64:7368::3]",
		"outbound:subnet=10.5.0.128/25":    "[10.5.0.228/25 fd70:6f64:7368::100/64] [10.5.0.130 fd70:6f64:7368::2] [10.5.0.131 fd70:6f64:7368::3]",
		"outbound:subnet=10.5.0.248/29":    "[10.5.0.252/29 fd70:6f64:7368::100/64] [10.5.0.250 fd70:6f64:7368::2] [10.5.0.251 fd70:6f64:7368::3]",
		"outbound:subnet=fd00::/64":        "[10.0.2.100/24 fd00::100/64] [10.0.2.2 fd00::2] [10.0.2.3 fd00::3]",
		"outbound:pasta:subnet=10.0.0.0/8": "[10.0.0.100/8 fd70:6f64:7368::100/64] [10.0.0.2 fd70:6f64:7368::2] [10.0.0.3 fd70:6f64:7368::3]",
	} {
		_, n, err := ParseNet(text)
		if err == nil {
			err = n.validateSubnets()
		}
		if o := n.Outbound(); err != nil || fmt.Sprint(o.Own, o.Gateways, o.Resolvers) != want {
			t.Errorf("%s: %v, %v", text, o, err)
		}
	}
}

func TestParseSysctl(t *testing.T) {
	for text, path := range map[string]string{
		"net.core.somaxconn=1024":          "net/core/somaxconn",
		"net.ipv4.conf.eth0/1.rp_filter=0": "net/ipv4/conf/eth0.1/rp_filter",
	} {
		if s, err := ParseSysctl(text); err != nil || s.Path() != path {
			t.Errorf("%s: %s, %v", text, s.Path(), err)
		}
	}
	for _, text := range []string{"", "net.core.somaxconn", "kernel.hostname=x", "net..core=1", "net.ipv4/../../kernel=1", "net.x=1\n", "net.a b=1"} {
		if _, err := ParseSysctl(text); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%q was taken: %v", text, err)
		}
	}
}

// TestAsRuncNamesCapabilities: --cap-add takes every name that runc knows.
func TestAsRuncNamesCapabilities(t *testing.T) {
	for _, name := range capabilities.KnownCapabilities() {
		if _, err := ParseCapability(name); err != nil {
			t.Error(err)
		}
	}
}

func TestAdjust(t *testing.T) {
	if got := Adjust(DefaultCapabilities, []string{"NET_ADMIN"}, []string{"ALL"}); !slices.Equal(got, []capability.Cap{capability.CAP_NET_ADMIN}) {
		t.Errorf("drop ALL, add NET_ADMIN: %v", got)
	}
	if got := Adjust(DefaultCapabilities, []string{"all"}, []string{"cap_chown"}); slices.Contains(got, capability.CAP_CHOWN) || len(got) != len(capability.ListKnown())-1 {
		t.Errorf("add all, drop CHOWN: %v", got)
	}
}

func TestParseChoice(t *testing.T) {
	for text, want := range map[string]Choice{
		"new": {Kind: "new"}, "host": {Kind: "host"}, "path:/a:b": {"path", "/a:b"}, "pod:web": {"pod", "web"},
		"": {}, "pod:": {}, "new:x": {}, "web": {},
	} {
		if got, err := ParseChoice("net", text); got != want || (err == nil) != (want.Kind != "") {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
