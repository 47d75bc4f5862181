package sandbox

import (
	"testing"

	"github.com/podsh/podsh/sandbox/proc"
)

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
