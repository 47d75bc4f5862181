package plan

import (
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

func FuzzLookUp(f *testing.F) {
	f.Add("ada", "root:x:0:0::/root:/bin/sh\nada:x:7:7::/home/ada:", "ada:x:7:\n")
	f.Fuzz(func(t *testing.T, who, passwd, group string) {
		found, err := LookUp(who, 0, 0, passwd, group)
		if err == nil && found.Home == "" {
			t.Errorf("%q has no home", who)
		}
	})
}

// FuzzMountTable: whatever the mount table says, every mount of a bound tree is made read-only, and at a
// place below where the tree is bound.
func FuzzMountTable(f *testing.F) {
	f.Add("22 1 8:1 / / rw - ext4 /dev/sda rw\n23 22 8:2 / /usr/local rw,nosuid - ext4 /dev/sdb rw\n")
	f.Fuzz(func(t *testing.T, table string) {
		mounts, err := mountinfo.GetMountsFromReader(strings.NewReader(table), nil)
		if err != nil {
			return
		}
		p := &Creation{Facts: &Facts{Mounts: mounts}}
		for _, r := range p.remounts(source{"/usr", true, readOnlyBind}, "usr") {
			if r.flags&unix.MS_RDONLY == 0 || r.dst != "usr" && !strings.HasPrefix(r.dst, "usr/") {
				t.Errorf("%+v", r)
			}
		}
	})
}
