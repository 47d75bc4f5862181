package names

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestHosts: a name of the host's /etc/hosts exists for members that may know it, and nothing of the host's loopback does.
func TestHosts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("127.0.0.1 localhost here\n::1 here\nfe80::1%eth0 here\n10.9.0.1 NAS.lan nas #other\n10.9.0.2 nas\n" +
		"::ffff:10.9.0.3 mapped\nfd00::9 nas\n10.9 wrong\n10.9.0.4\n10.9.0.1 again\n0.0.0.0 ads.test\n")
	asker, other := netip.MustParseAddr("10.3.0.6"), netip.MustParseAddr("10.3.0.7")
	f := newForwarder(t, Config{Hosts: path, ResolvConf: resolvConfOf(t, "127.0.0.9")},
		Member{ID: "1", Hosts: true, Internal: true, Networks: map[string][]netip.Addr{"": {asker}}},
		Member{ID: "2", Internal: true, Networks: map[string][]netip.Addr{"": {other}}})
	ask := func(from netip.Addr, name string, kind uint16) []string {
		t.Helper()
		m := askAs(t, f, from, question(name, kind), false)
		got := []string{dns.RcodeToString[m.Rcode]}
		for _, record := range m.Answer {
			got = append(got, dns.Field(record, 1))
		}
		return got
	}
	for _, test := range []struct {
		name string
		kind uint16
		want []string
	}{
		{"nas.LAN", dns.TypeA, []string{"NOERROR", "10.9.0.1"}},
		{"nas", dns.TypeA, []string{"NOERROR", "10.9.0.1", "10.9.0.2"}},
		{"nas", dns.TypeAAAA, []string{"NOERROR", "fd00::9"}},
		{"nas", dns.TypeANY, []string{"NOERROR", "10.9.0.1", "10.9.0.2", "fd00::9"}},
		{"nas.lan", dns.TypeAAAA, []string{"NOERROR"}},
		{"nas.lan", dns.TypeMX, []string{"NOERROR"}},
		{"mapped", dns.TypeA, []string{"NOERROR", "10.9.0.3"}},
		{"ads.test", dns.TypeA, []string{"NOERROR", "0.0.0.0"}},
		{"1.0.9.10.in-addr.arpa", dns.TypePTR, []string{"NOERROR", "NAS.lan."}},
		{"here", dns.TypeA, []string{"NXDOMAIN"}},
		{"here", dns.TypeAAAA, []string{"NXDOMAIN"}},
		{"1.0.0.127.in-addr.arpa", dns.TypePTR, []string{"NXDOMAIN"}},
		{"other", dns.TypeA, []string{"NXDOMAIN"}},
		{"wrong", dns.TypeA, []string{"NXDOMAIN"}},
	} {
		if got := ask(asker, test.name, test.kind); !slices.Equal(got, test.want) {
			t.Errorf("%s %s: %q, want %q", test.name, dns.TypeToString[test.kind], got, test.want)
		}
		if got := ask(other, test.name, test.kind); !slices.Equal(got, []string{"NXDOMAIN"}) {
			t.Errorf("%s %s of a pod that may not know it: %q", test.name, dns.TypeToString[test.kind], got)
		}
	}
	write("10.9.0.5 new\n")
	f.hosts.mu.Lock()
	f.hosts.looked = f.hosts.looked.Add(-time.Second) // a second has passed
	f.hosts.mu.Unlock()
	if got := ask(asker, "new", dns.TypeA); !slices.Equal(got, []string{"NOERROR", "10.9.0.5"}) {
		t.Errorf("after a change: %q", got)
	}
	if got := ask(asker, "nas", dns.TypeA); !slices.Equal(got, []string{"NXDOMAIN"}) {
		t.Errorf("a name that has gone: %q", got)
	}
}
