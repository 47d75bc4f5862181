package network

import (
	"net/netip"
	"strings"
	"testing"
)

func TestResolvConf(t *testing.T) {
	host := "# of a VPN\nsearch old.example\n;search no.example\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\noptions ndots:2 rotate\n" +
		"domain\nsearch corp.example lab.test\noptions timeout:1\nsortlist 192.0.2.0\nnonsense"
	servers := []netip.Addr{netip.MustParseAddr("10.0.2.3")}
	for _, test := range []struct {
		why      string
		resolver Resolver
		host     string
		want     string
	}{
		{"the host's", Resolver{Servers: servers}, host, "nameserver 10.0.2.3|search corp.example lab.test|options ndots:2 rotate timeout:1|"},
		{"a domain", Resolver{Servers: servers}, "domain example.org home\n", "nameserver 10.0.2.3|search example.org|"},
		{"nothing", Resolver{Servers: servers}, "", "nameserver 10.0.2.3|"},
		{"nobody to ask", Resolver{}, "", "# this pod has no way out|"},
		{"domains of its own", Resolver{Servers: servers, Search: []string{"test"}}, host, "nameserver 10.0.2.3|search test|options ndots:2 rotate timeout:1|"},
		{"no domain", Resolver{Servers: servers, Search: []string{"."}, First: []string{"dns.podsh"}}, host, "nameserver 10.0.2.3|options ndots:2 rotate timeout:1|"},
		{"none of the host's", Resolver{Servers: servers}, "search .\n", "nameserver 10.0.2.3|"},
		{"options of its own", Resolver{Servers: servers, Options: []string{"edns0"}}, host, "nameserver 10.0.2.3|search corp.example lab.test|options edns0|"},
		{"a domain before them", Resolver{Servers: servers, First: []string{"dns.podsh"}}, host, "nameserver 10.0.2.3|search dns.podsh corp.example lab.test|options ndots:2 rotate timeout:1|"},
	} {
		conf := test.resolver.ResolvConf(ParseResolvConf(test.host))
		if got := strings.ReplaceAll(conf.String(), "\n", "|"); got != test.want {
			t.Errorf("%s: %s, want %s", test.why, got, test.want)
		}
		if again := ParseResolvConf(conf.String()); again.String() != conf.String() {
			t.Errorf("%s: read again it is %q", test.why, again)
		}
	}
}

func TestHostLines(t *testing.T) {
	const text = "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 box\n192.0.2.7\tnas.lan\tnas # in the cellar\n# 192.0.2.8 no\nnonsense here\n192.0.2.9\nfe80::1%eth0 router\r\n"
	for loopback, want := range map[bool]string{
		false: "192.0.2.7 nas.lan nas\nfe80::1%eth0 router\n",
		true:  "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 box\n192.0.2.7 nas.lan nas\nfe80::1%eth0 router\n",
	} {
		if got := HostLines(text, loopback); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzResolvConf(f *testing.F) {
	f.Add("nameserver 192.0.2.1\nsearch a b\noptions ndots:2\n")
	f.Fuzz(func(t *testing.T, text string) {
		conf := (&Resolver{}).ResolvConf(ParseResolvConf(text))
		if again := ParseResolvConf(conf.String()); again.String() != conf.String() {
			t.Errorf("%q becomes %q, and that %q", text, conf, again)
		}
	})
}
