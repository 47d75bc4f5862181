package names

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "[127.0.0.1:53] 2s 2"},
		{"# nothing\nsearch example.com\n", "[127.0.0.1:53] 2s 2"},
		{"nameserver 192.0.2.1", "[192.0.2.1:53] 2s 2"},
		{"nameserver 127.0.0.53\noptions edns0 trust-ad\n", "[127.0.0.53:53] 2s 2"},
		{"nameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver ::ffff:192.0.2.2\nnameserver 192.0.2.3\n",
			"[192.0.2.1:53 [fe80::1%eth0]:53 192.0.2.2:53] 2s 2"},
		{"nameserver dns.example.com\nnameserver 1.2.3\nnameserver\nnameserver 192.0.2.1\n", "[192.0.2.1:53] 2s 2"},
		{"options timeout:1 attempts:4 rotate\nnameserver 192.0.2.1\n", "[192.0.2.1:53] 1s 4"},
		{"options timeout:-5 attempts:x\nnameserver 192.0.2.1\n", "[192.0.2.1:53] 1s 1"},
		{"options timeout:999999999999 attempts:99\nnameserver 192.0.2.1\n", "[192.0.2.1:53] 30s 5"},
		{strings.Repeat("x", 1<<20) + "\nnameserver 192.0.2.1\n", "[127.0.0.1:53] 2s 2"},
	} {
		s, err := parse(test.text)
		if got := fmt.Sprint(s.servers, s.timeout, s.attempts); err != nil || got != test.want {
			t.Errorf("%.60q: %s, %v; want %s", test.text, got, err, test.want)
		}
	}
}

func TestResolvConfChanges(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "resolv.conf")
	f := newForwarder(t, Config{ResolvConf: path})
	expect := func(why, want string) {
		t.Helper()
		f.resolv.mu.Lock()
		f.resolv.looked = time.Time{} // a second has passed
		f.resolv.mu.Unlock()
		servers, err := f.Upstream()
		if got := fmt.Sprint(servers); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", why, got, err, want)
		}
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expect("missing", "[127.0.0.1:53]")
	write(path, "nameserver 192.0.2.1\n")
	expect("there", "[192.0.2.1:53]")
	write(path, "nameserver 192.0.2.10\n")
	expect("written in place", "[192.0.2.10:53]")
	write(filepath.Join(dir, "new"), "nameserver 192.0.2.11\n")
	if err := os.Rename(filepath.Join(dir, "new"), path); err != nil {
		t.Fatal(err)
	}
	expect("another renamed into its place", "[192.0.2.11:53]")
	write(path, "")
	expect("empty", "[127.0.0.1:53]")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "stub"), "nameserver 127.0.0.53\n")
	if err := os.Symlink("stub", path); err != nil {
		t.Fatal(err)
	}
	expect("a link", "[127.0.0.53:53]")
	write(filepath.Join(dir, "stub"), "nameserver 192.0.2.12\n")
	expect("what the link leads to", "[192.0.2.12:53]")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect("gone", "[127.0.0.1:53]")

	write(path, "nameserver 192.0.2.13\n")
	expect("back", "[192.0.2.13:53]")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o755); err != nil { // what not even root can read
		t.Fatal(err)
	}
	f.resolv.mu.Lock()
	f.resolv.looked = time.Time{}
	f.resolv.mu.Unlock()
	if servers, err := f.Upstream(); err == nil || fmt.Sprint(servers) != "[192.0.2.13:53]" {
		t.Errorf("a directory: %v, %v", servers, err)
	}
}

func TestResolvConfUnreadable(t *testing.T) {
	f := newForwarder(t, Config{ResolvConf: t.TempDir()})
	if servers, err := f.Upstream(); err == nil || len(servers) > 0 {
		t.Errorf("a directory: %v, %v", servers, err)
	}
	f.Set(Member{ID: "1", Networks: members[2].Networks})
	if got := said(askAs(t, f, lone, question("a.test", 1), false)); got != "SERVFAIL" {
		t.Errorf("%q, want SERVFAIL", got)
	}
}
