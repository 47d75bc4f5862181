package rootfs

import "testing"

func TestAmounts(t *testing.T) {
	for text, want := range map[string]bool{
		"1": true, "64m": true, "64M": true, "8g": true, "4294967296": true, "17179869184": true, "1k": true,
		"": false, "k": false, "0": false, "0k": false, "08k": false, "010": false, "-1": false, "+1": false, "1 ": false, "1kk": false, "1t": false,
		"18014398509481984k": false, "9223372036854775807": false, "4294967296g": false, "5%": false, "0x10": false,
	} {
		if got := isAmount(text); got != want {
			t.Errorf("isAmount(%q) is %v", text, got)
		}
	}
}

// What the kernel is asked for is what was typed, in the usual way where nothing was.
func TestTmpfs(t *testing.T) {
	for text, want := range map[string]string{
		"/x":                                   "nosuid,nodev,mode=1777",
		"/x/:size=5%":                          "nosuid,nodev,mode=1777,size=5%",
		"/x:rw,noexec,nosuid,size=65536k":      "nosuid,nodev,noexec,mode=1777,size=65536k",
		"/x:noexec,exec,mode=0755,nr_inodes=9": "nosuid,nodev,mode=0755,nr_inodes=9",
	} {
		mount, err := ParseTmpfs(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if m := mount.Mount(); m.Target != "/x" || m.Options() != want {
			t.Errorf("%s is mounted on %s with %s, not %s", text, m.Target, m.Options(), want)
		}
	}
	for _, text := range []string{"", "x", "/", "/:size=1m", "/x:", "/x:size", "/x:size=", "/x:size=5k%", "/x:size=200%%", "/x:mode=9", "/x:mode=4755", "/x:uid=5", "/x:size=1m,,", "/x:size=1m:ro"} {
		if mount, err := ParseTmpfs(text); err == nil {
			t.Errorf("%q is taken for %+v", text, mount)
		}
	}
}
