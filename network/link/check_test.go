package link

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/podsh/podsh/network"
)

func TestCheck(t *testing.T) {
	conflist := json.RawMessage(`{"name":"x","cniVersion":"1.0.0","plugins":[{"type":"bridge"}]}`)
	for _, c := range []struct {
		network Network
		others  []Network
		want    string // part of the error, or "" for none
	}{
		{blue, []Network{red, dark, {Name: "mine", Conflist: conflist}}, ""},
		{Network{Name: "x", Conflist: conflist}, []Network{blue}, ""},
		{Network{Name: "x", Bridge: "b", Subnets: subnets("10.0.0.0/30")}, nil, ""},
		{Network{Name: "x", Bridge: "b", Subnets: subnets("10.0.0.0/31")}, nil, "too small"},
		{Network{Name: "x", Bridge: "b", Subnets: subnets("10.0.0.1/24")}, nil, "did you mean 10.0.0.0/24?"},
		{Network{Name: "x", Bridge: "b", Subnets: subnets("127.1.0.0/16")}, nil, "not addresses that pods can have"},
		{Network{Name: "x", Bridge: "b", Subnets: subnets("fe80::/64", "10.0.0.0/24")}, nil, "not addresses that pods can have"},
		{Network{Name: "x", Bridge: "b", Subnets: subnets("::ffff:10.0.0.0/120")}, nil, "not a subnet"},
		{Network{Name: "x", Bridge: "b", Subnets: subnets("fd00::/64")}, nil, ""},
		{Network{Name: "x", Bridge: "b", Subnets: subnets("10.0.0.0/24", "10.0.1.0/24")}, nil, "2 IPv4"},
		{Network{Name: "x", Bridge: "b"}, nil, "0 IPv4"},
		{Network{Name: "x", Bridge: "a-name-too-long!", Subnets: subnets("10.0.0.0/24")}, nil, "too long"},
		{Network{Name: "../x", Bridge: "b", Subnets: subnets("10.0.0.0/24")}, nil, "invalid characters"},
		{Network{Name: "", Bridge: "b", Subnets: subnets("10.0.0.0/24")}, nil, "missing network name"},
		{Network{Name: "x", Conflist: json.RawMessage(`{`)}, nil, "CNI configuration"},
		{Network{Name: "x", Conflist: json.RawMessage(`{"name":"x"}`)}, nil, "names no plugins"},
		{Network{Name: "x", Conflist: json.RawMessage(`{"name":"x","plugins":[{"type":"b","ipam":{"type":"host-local","dataDir":1}}]}`)}, nil, ""},
	} {
		err := Check(c.network, c.others)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.network, err, c.want)
		}
	}
}

func TestCheckOverlap(t *testing.T) {
	for want, n := range map[string]Network{
		`network "x": 10.89.0.0/16 overlaps 10.89.1.0/24 of network "blue"`:     {Name: "x", Bridge: "b", Subnets: subnets("10.89.0.0/16")},
		`network "x": fd00:89:1::/96 overlaps fd00:89:1::/64 of network "blue"`: {Name: "x", Bridge: "b", Subnets: subnets("10.0.0.0/24", "fd00:89:1::/96")},
		`network "x": podsh1 overlaps podsh1 of network "blue"`:                 {Name: "x", Bridge: "podsh1", Subnets: subnets("10.0.0.0/24")},
		`network "blue": the name overlaps the name of network "blue"`:          blue,
	} {
		var overlap *OverlapError
		if err := Check(n, []Network{blue, red}); !errors.As(err, &overlap) || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestEnds(t *testing.T) {
	for subnet, want := range map[string][2]string{
		"10.0.0.0/24":   {"10.0.0.1", "10.0.0.254"},
		"10.0.0.4/30":   {"10.0.0.5", "10.0.0.6"},
		"10.0.0.128/25": {"10.0.0.129", "10.0.0.254"},
		"172.16.0.0/12": {"172.16.0.1", "172.31.255.254"},
		"fd00::/64":     {"fd00::1", "fd00::ffff:ffff:ffff:ffff"},
		"fd00::10/124":  {"fd00::11", "fd00::1f"},
	} {
		gateway, last := network.Ends(subnets(subnet)[0])
		if gateway.String() != want[0] || last.String() != want[1] {
			t.Errorf("%s: %s, %s", subnet, gateway, last)
		}
	}
}
