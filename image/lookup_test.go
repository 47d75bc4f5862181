package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// layersOf makes folders of tables: a name that ends in / is a folder, in /! one that is opaque, a text that begins
// with -> a link, and one that is "whiteout" a whiteout.
func layersOf(t *testing.T, tables ...map[string]string) []string {
	t.Helper()
	var layers []string
	for _, table := range tables {
		layer := t.TempDir()
		layers = append(layers, layer)
		for name, text := range table {
			name, isOpaque := strings.CutSuffix(name, "!")
			path := filepath.Join(layer, name)
			err := os.MkdirAll(filepath.Dir(path), 0o755)
			if link, ok := strings.CutPrefix(text, "->"); err == nil && ok {
				err = os.Symlink(link, path)
			} else if err == nil && text == "whiteout" {
				err = unix.Mknod(path, unix.S_IFCHR, 0) // Linux 5.8 lets everybody make them
				if errors.Is(err, unix.EPERM) && os.Getenv("PODSH_MUST_WORK") != "1" {
					t.Skip("no whiteouts here: a seccomp filter may forbid them")
				}
			} else if err == nil && strings.HasSuffix(name, "/") {
				err = os.MkdirAll(path, 0o755)
			} else if err == nil {
				err = os.WriteFile(path, []byte(text), 0o640)
			}
			if err == nil && isOpaque {
				err = unix.Setxattr(path, "user.overlay.opaque", []byte("y"), 0)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return layers
}

// TestLookUp: what the kernel shows of such layers, see overlayfs.rst.
func TestLookUp(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	layers := layersOf(t,
		map[string]string{
			"etc/passwd": "low", "etc/group": "low", "etc/gone": "low", "usr/lib/os-release": "low", "var/a/b": "low",
			"opaque/old": "low", "file": "low", "dir/x": "low", "gone/x": "low", "sub/opaque/old": "low",
		},
		map[string]string{
			"etc/passwd": "high", "etc/gone": "whiteout", "etc/os-release": "->../usr/lib/os-release", "gone": "whiteout",
			"opaque/!": "", "opaque/new": "high", "file/x": "high", "dir": "high", "sub/opaque/!": "",
			"absolute": "->/etc/passwd", "out": "->" + outside, "up": "->../../../../etc/passwd", "loop": "->loop",
			"round": "->round2", "round2": "->round", "lib": "->usr/lib", "dots": "->./etc/./../etc//group", "self": "->.",
		})
	for _, c := range []struct {
		name, want string
		err        error
	}{
		{"/etc/passwd", "high", nil},
		{"etc/group", "low", nil},
		{"/etc/gone", "", fs.ErrNotExist},
		{"/gone", "", fs.ErrNotExist},
		{"/gone/x", "", fs.ErrNotExist},
		{"/var/a/b", "low", nil},
		{"/opaque/old", "", fs.ErrNotExist},
		{"/opaque/new", "high", nil},
		{"/sub/opaque/old", "", fs.ErrNotExist},
		{"/file", "", fs.ErrInvalid}, // a folder now
		{"/file/x", "high", nil},
		{"/dir", "high", nil},
		{"/dir/x", "", unix.ENOTDIR},
		{"/etc/passwd/x", "", unix.ENOTDIR},
		{"/etc/os-release", "low", nil}, // the link is in one layer, what it points to in another
		{"/absolute", "high", nil},
		{"/up", "high", nil},
		{"/out", "", fs.ErrNotExist},
		{"/../../../.." + outside, "", fs.ErrNotExist},
		{"/etc/../etc/./group", "low", nil},
		{"/dots", "low", nil},
		{"/lib/os-release", "low", nil},
		{"/self/self/self/etc/group", "low", nil},
		{"/loop", "", unix.ELOOP},
		{"/round", "", unix.ELOOP},
		{"/", "", fs.ErrInvalid},
		{"", "", fs.ErrInvalid},
		{"/" + strings.Repeat("x", 300), "", unix.ENAMETOOLONG},
	} {
		text, err := LookUp(layers, c.name)
		if text != c.want || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%q: %q, %v; not %q, %v", c.name, text, err, c.want, c.err)
		}
	}
	if _, err := LookUp(nil, "/etc/passwd"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("of no layers: ", err)
	}
	mode, uid, gid, err := StatIn(layers, "/absolute")
	if err != nil || mode != unix.S_IFREG|0o640 || int(uid) != os.Geteuid() || int(gid) != os.Getegid() {
		t.Errorf("stat: %o %d %d %v", mode, uid, gid, err)
	}
}

// TestLookUpKinds: nothing but a regular file of a sane size is read; a pipe would block for ever.
func TestLookUpKinds(t *testing.T) {
	layers := layersOf(t, map[string]string{"big": strings.Repeat("x", maxFile+1), "full": strings.Repeat("x", maxFile)})
	if err := unix.Mkfifo(filepath.Join(layers[0], "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"big", "pipe"} {
		if _, err := LookUp(layers, name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if text, err := LookUp(layers, "full"); len(text) != maxFile || err != nil {
		t.Error(len(text), err)
	}
}

// TestLookUpLeased: a lease on a file, which its owner can have, is not waited for.
func TestLookUpLeased(t *testing.T) {
	layers := layersOf(t, map[string]string{"file": "text"})
	leased, err := os.Open(filepath.Join(layers[0], "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer leased.Close()
	if _, err := unix.FcntlInt(leased.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skipf("no leases here: %v", err)
	}
	began := time.Now()
	if text, err := LookUp(layers, "file"); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("%q, %v", text, err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestLookUpDescriptors: none stays open.
func TestLookUpDescriptors(t *testing.T) {
	layers := layersOf(t, map[string]string{"a/b/c": "low", "l": "->a/../a/b/c"}, map[string]string{"a/b/d": "high"})
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := count()
	for _, name := range []string{"l", "a/b", "a/b/x", "a/b/c/d", "a/../.."} {
		_, _ = LookUp(layers, name)
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors, not %d", after, before)
	}
}
