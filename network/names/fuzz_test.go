package names

import (
	"strings"
	"testing"
)

// FuzzParse: whatever a resolv.conf says, there is someone to ask, within glibc's bounds.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"", "nameserver 192.0.2.1\nnameserver fe80::1%eth0\noptions timeout:3 attempts:9\nsearch a b\n",
		"options timeout:-1 attempts:-1 ndots:99\n", "options timeout:99999999999999999999\nnameserver\n", "nameserver 1.2.3\n;x\n#y\n\tnameserver ::1\n",
		"options\n", "search\ndomain\nsortlist\n", "options :\noptions timeout:\n", strings.Repeat("nameserver ::ffff:192.0.2.1\n", 9),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parse(text)
		if err != nil {
			return
		}
		if n := len(s.servers); n < 1 || n > maxServers {
			t.Errorf("%q: %d servers", text, n)
		}
		for _, server := range s.servers {
			if !server.IsValid() || server.Port() != 53 || server.Addr().Is4In6() {
				t.Errorf("%q: server %v", text, server)
			}
		}
		if s.timeout <= 0 || s.timeout > maxTimeout || s.attempts < 1 || s.attempts > maxAttempts {
			t.Errorf("%q: %v, %d times", text, s.timeout, s.attempts)
		}
	})
}
