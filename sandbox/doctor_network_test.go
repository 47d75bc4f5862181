package sandbox

import (
	"strings"
	"testing"
)

func TestDoctorOfPing(t *testing.T) {
	for groups, want := range map[string]string{
		"0\t2147483647": "groups 0 to 2147483647 may on the host (net.ipv4.ping_group_range 0 2147483647); in pods all may",
		"1\t0":          "on the host nobody may without privileges (net.ipv4.ping_group_range 1 0); in pods all may",
		"":              "", // no IPv4
	} {
		f := checkPing(pretend(map[string]string{"proc/sys/net/ipv4/ping_group_range": groups}))
		if f.Finding != want || want != "" && f.OK != strings.HasPrefix(groups, "0") || !f.OK && want != "" && f.Fix == "" {
			t.Errorf("%q: %+v", groups, f)
		}
	}
}

func TestDoctorOfLowPorts(t *testing.T) {
	for start, want := range map[string]string{"1024": "below 1024 need privileges", "0": "none of the host need privileges", "": ""} {
		f := checkPorts(pretend(map[string]string{"proc/sys/net/ipv4/ip_unprivileged_port_start": start}))
		if !strings.Contains(f.Finding, want) || (want == "") != (f.Finding == "") || want != "" && !f.OK {
			t.Errorf("%q: %+v", start, f)
		}
	}
}
