package network

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// port makes one by hand; an ip of "" is all addresses.
func port(ip string, host, pod uint16, protocol string) Port {
	p := Port{HostPort: host, PodPort: pod, Protocol: protocol}
	if ip != "" {
		p.HostIP = netip.MustParseAddr(ip)
	}
	return p
}

func TestParsePorts(t *testing.T) {
	for text, want := range map[string][]Port{
		"8080:80":               {port("", 8080, 80, "tcp")},
		"8080:80/tcp":           {port("", 8080, 80, "tcp")},
		"127.0.0.1:5353:53/udp": {port("127.0.0.1", 5353, 53, "udp")},
		"[::1]:8443:443":        {port("::1", 8443, 443, "tcp")},
		"[fe80::1%eth0]:81:80":  {port("fe80::1%eth0", 81, 80, "tcp")},
		"0:80":                  {port("", 0, 80, "tcp")},
		"0.0.0.0:0:80-81":       {port("0.0.0.0", 0, 80, "tcp"), port("0.0.0.0", 0, 81, "tcp")},
		"8000-8001:80-81/udp":   {port("", 8000, 80, "udp"), port("", 8001, 81, "udp")},
		"65535:65535":           {port("", 65535, 65535, "tcp")},
	} {
		if got, err := ParsePorts(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, not %v (%v)", text, got, want, err)
		}
	}
}

// malformed is what neither names a port nor can be published.
var malformed = []string{"", ":", "::", "80:", ":80", "x:80", "80:x", "65536:80", "80:65536", "-1:80", "80:0", "8080:80/sctp", "8080:80/",
	"8000-8001:80", "8000:80-81", "8001-8000:81-80", "0-1:80-81", "::1:8080:80", "[127.0.0.1]:8080:80", "1.2.3:8080:80",
	"host:8080:80", "127.0.0.1%lo:8080:80", "1:2:3:4", "8080:80/tcp/udp", " 8080:80", "+80:80"}

func TestParsePortsOfNonsense(t *testing.T) {
	for _, text := range append(malformed, "80", "127.0.0.1:80", "80/udp") {
		if got, err := ParsePorts(text); err == nil {
			t.Errorf("%q: %v", text, got)
		} else if !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v does not name it", text, err)
		}
	}
}

func TestParsePublished(t *testing.T) {
	for text, want := range map[string][]Port{
		"8080":                  {port("", 8080, 0, "tcp")},
		"53/udp":                {port("", 53, 0, "udp")},
		"127.0.0.1:5353/udp":    {port("127.0.0.1", 5353, 0, "udp")},
		"[::1]:8443":            {port("::1", 8443, 0, "tcp")},
		"8000-8001":             {port("", 8000, 0, "tcp"), port("", 8001, 0, "tcp")},
		"8080:80":               {port("", 8080, 80, "tcp")},
		"127.0.0.1:5353:53/udp": {port("127.0.0.1", 5353, 53, "udp")},
		"[::1]:8443:443/tcp":    {port("::1", 8443, 443, "tcp")},
	} {
		if got, err := ParsePublished(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, not %v (%v)", text, got, want, err)
		}
	}
	for _, text := range append(malformed, "0", "0:80", "127.0.0.1:0", "1.2.3:80x", "tcp", "80-79") {
		if got, err := ParsePublished(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestOverlaps(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"80:1", "80:2", true},
		{"80:1", "81:1", false},
		{"80:1/tcp", "80:1/udp", false},
		{"0:1", "0:1", false}, // each gets a number of its own
		{"80:1", "127.0.0.1:80:1", true},
		{"127.0.0.1:80:1", "127.0.0.2:80:1", false},
		{"0.0.0.0:80:1", "127.0.0.2:80:1", true},
		{"0.0.0.0:80:1", "[::1]:80:1", false},
		{"[::]:80:1", "[::1]:80:1", true},
		{"80:1", "[::1]:80:1", true},
	} {
		a, errA := ParsePorts(test.a)
		b, errB := ParsePorts(test.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if got, back := a[0].Overlaps(b[0]), b[0].Overlaps(a[0]); got != test.want || back != test.want {
			t.Errorf("%s and %s: %v, %v", test.a, test.b, got, back)
		}
	}
}

// FuzzParsePorts: what is read has all its parts, is written as it is read, and names what is published so.
func FuzzParsePorts(f *testing.F) {
	for _, text := range append(malformed, "8080:80", "127.0.0.1:5353:53/udp", "[fe80::1%eth0]:8000-8009:80-89", "0:80-81") {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ports, err := ParsePorts(text)
		if err != nil {
			return
		}
		if len(ports) == 0 {
			t.Fatalf("%q: no ports", text)
		}
		for _, p := range ports {
			if p.PodPort == 0 || p.Protocol != "tcp" && p.Protocol != "udp" {
				t.Fatalf("%q: %+v", text, p)
			}
			if again, err := ParsePorts(p.String()); err != nil || len(again) != 1 || again[0] != p {
				t.Fatalf("%q: %s is read as %v: %v", text, p, again, err)
			}
			if named, err := ParsePublished(p.String()); (err == nil) != (p.HostPort != 0) || err == nil && named[0] != p {
				t.Fatalf("%q: %s names %v: %v", text, p, named, err)
			}
		}
	})
}
