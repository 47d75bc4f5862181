package store

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
)

// FuzzClaim: a claim that is read is the one that was written.
func FuzzClaim(f *testing.F) {
	c := claim{boot: "01234567-89ab-cdef-0123-456789abcdef", machine: `m "q"`, pids: 4026531836,
		holder: proc.ID{PID: 7, Started: "123", PIDFDInode: 9}, store: "1:2 /run/podsh"}
	c.holder.BootID = c.boot
	f.Add(c.String())
	f.Add(`                                    x "" 0 0:"":0 `)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		c, ok := parseClaim(text)
		if ok && c.String() != text {
			t.Errorf("%q was read as %q", text, c)
		}
	})
}

// What a claim says is read as it was written, whatever its parts are.
func TestClaim(t *testing.T) {
	now, err := (&Store{t.TempDir()}).claim()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []claim{
		now,
		{boot: now.boot, holder: proc.ID{PID: 7, Started: "4711", PIDFDInode: 9, BootID: now.boot}, store: "1:2 /a b/%d \"c\""},
		{boot: now.boot, machine: "a \"b\" %s", pids: 1 << 40, store: ""},
	} {
		c.holder.BootID = c.boot
		if got, ok := parseClaim(c.String()); !ok || got != c {
			t.Errorf("%q is read as %+v, not %+v", c, got, c)
		}
	}
	for _, text := range []string{"", "x", "39:2 /run/podsh", now.boot, now.boot + ` "" 1 0:"":0`, now.boot + ` "" 1 0:"":0x /`} {
		if got, ok := parseClaim(text); ok {
			t.Errorf("%q is read as %+v", text, got)
		}
	}
}

func FuzzDescription(f *testing.F) {
	f.Add([]byte(`{"format":1,"id":"0123456789ab","holder":{"pid":1}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		store := &Store{t.TempDir()}
		dir := store.Below("pods", "0123456789ab")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "pod.json"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := store.Load("0123456789ab")
		if p == nil || err == nil && p.Format != pod.Format {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	})
}
