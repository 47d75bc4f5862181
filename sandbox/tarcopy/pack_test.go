package tarcopy

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listed is a tar as lines like those that it would be made from.
func listed(t testing.TB, r io.Reader) string {
	t.Helper()
	var lines []string
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if err == io.EOF {
			return strings.Join(lines, "\n")
		}
		if err != nil {
			t.Fatal(err)
		}
		for letter, kind := range kindOf {
			if kind == h.Typeflag {
				contents, err := io.ReadAll(in)
				if err != nil {
					t.Fatal(err)
				}
				line := letter + " " + h.Name + " " + h.Linkname + string(contents)
				lines = append(lines, strings.TrimSpace(line))
			}
		}
	}
}

func TestPack(t *testing.T) {
	dir := t.TempDir()
	grow(t, dir, "d a/b", "d a/empty", "f a/x one", "h a/y a/x", "h other a/x", "l a/z ../../out", "p a/b/fifo",
		"f a/b/f two", "l abs /a/b", "l tofile a/x")
	root := openRoot(t, dir)
	b := "d n/\nf n/f two"
	for _, c := range []struct{ name, want, left, err string }{
		{name: "a", want: "d n/\nd n/b/\nf n/b/f two\nd n/empty/\nf n/x one\nh n/y n/x\nl n/z ../../out", left: "n/b/fifo"},
		{name: "a/x", want: "f n one"},
		{name: "/a/b/", want: b, left: "n/fifo"},
		{name: "abs", want: "l n /a/b"},
		{name: "abs/", want: b, left: "n/fifo"},
		{name: "a/x/", err: `"a/x/" is not a folder`},
		{name: "abs/.", want: b, left: "n/fifo"},
		{name: "abs/f", want: "f n two"},
		{name: "../abs/../b/f", want: "f n two"},
		{name: "tofile", want: "l n a/x"},
		{name: "a/b/fifo", left: "n"},
		{name: "a/z/.", err: `no file or folder "a/z/."`},
		{name: "tofile/.", err: `"tofile/." is not a folder`},
		{name: "none", err: `no file or folder "none"`},
		{name: "none/x", err: `no folder "none"`},
	} {
		t.Run(strings.ReplaceAll(c.name, "/", "|"), func(t *testing.T) {
			var b bytes.Buffer
			packed, err := Pack(root, c.name, "n", &b)
			wantError(t, err, c.err)
			if got := listed(t, &b); err == nil && got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if got := strings.Join(packed.Left, " "); got != c.left {
				t.Errorf("left out %q, want %q", got, c.left)
			}
		})
	}
	for _, base := range []string{"", "..", "a/b", "/"} {
		_, err := Pack(root, "a", base, io.Discard)
		wantError(t, err, "is no name that a copy can have")
	}
}

// hook calls do at the first write: that is, when the first header has been made.
type hook struct {
	bytes.Buffer
	do func()
}

func (h *hook) Write(b []byte) (int, error) {
	if h.do != nil {
		h.do()
		h.do = nil
	}
	return h.Buffer.Write(b)
}

// What changes while it is packed doesn't spoil the tar.
func TestPackWhileItChanges(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(dir string) error
		want   string
	}{
		{"shrinks", func(dir string) error { return os.Truncate(dir+"/f", 1) }, "d n/\nf n/a first\nf n/f s\nf n/g last"},
		{"vanishes", func(dir string) error { return os.Remove(dir + "/f") }, "d n/\nf n/a first\nf n/g last"},
		{"becomes a link", func(dir string) error {
			os.Remove(dir + "/f")
			return os.Symlink("/etc/passwd", dir+"/f")
		}, "d n/\nf n/a first\nl n/f /etc/passwd\nf n/g last"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			grow(t, dir, "f a first", "f f second", "f g last")
			w := &hook{do: func() {
				if err := c.change(dir); err != nil {
					t.Error(err)
				}
			}}
			if _, err := Pack(openRoot(t, dir), "/", "n", w); err != nil {
				t.Fatal(err)
			}
			if got := listed(t, &w.Buffer); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
	// The header of a file by itself is out before the file is read.
	for size, want := range map[int64]string{1: "f n s\x00\x00\x00\x00\x00", 9: "f n second"} {
		dir := t.TempDir()
		grow(t, dir, "f f second")
		w := &hook{do: func() { os.Truncate(dir+"/f", size) }}
		if _, err := Pack(openRoot(t, dir), "f", "n", w); err != nil {
			t.Fatal(err)
		}
		if got := listed(t, &w.Buffer); got != want {
			t.Errorf("of %d bytes: got %q, want %q", size, got, want)
		}
	}
}

// A folder that is exchanged for a link again and again is packed, or refused: what the link leads to is never packed.
func TestPackWhileItBecomesALink(t *testing.T) {
	top := t.TempDir()
	grow(t, top, "d shared/from", "f shared/from/x ours", "d secret", "f secret/x secret", "l shared/link ../secret")
	root := openRoot(t, top)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, top+"/shared/from", unix.AT_FDCWD, top+"/shared/link", unix.RENAME_EXCHANGE)
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	packed := 0
	for range 3000 {
		var b bytes.Buffer
		if _, err := Pack(root, "/shared/from", "from", &b); err != nil {
			continue
		}
		switch got := listed(t, &b); got {
		case "d from/\nf from/x ours":
			packed++
		case "", "d from/", "l from ../secret": // as it was when it was looked at
		default:
			t.Fatalf("got\n%s", got)
		}
	}
	if packed == 0 {
		t.Error("it was never packed")
	}
}

// There and back: modes, times, hard links.
func TestRoundTrip(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	grow(t, from, "d a/b", "f a/b/f one", "h a/h a/b/f", "l a/l b/f", "f a/Übergröße two", "f a/bad\xff three")
	when := time.Unix(1234567890, 123456789)
	for name, mode := range map[string]os.FileMode{"a/b/f": 0o640, "a/b": 0o500, "a": 0o711} {
		if err := os.Chmod(filepath.Join(from, name), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(from, name), when, when); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { // an ordinary user couldn't remove these
		for _, dir := range []string{from, to} {
			os.Chmod(dir+"/a/b", 0o700)
		}
	})
	var b bytes.Buffer
	if _, err := Pack(openRoot(t, from), "a", "a", &b); err != nil {
		t.Fatal(err)
	}
	if err := Place(openRoot(t, to), ".", "", &b, Options{Owners: os.Geteuid() == 0}); err != nil {
		t.Fatal(err)
	}
	if got, want := shown(t, to, ""), shown(t, from, ""); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, name := range []string{"a/b/f", "a/b", "a"} {
		got, _ := os.Stat(filepath.Join(to, name))
		want, _ := os.Stat(filepath.Join(from, name))
		if got.Mode() != want.Mode() || !got.ModTime().Equal(when) {
			t.Errorf("%s is %v of %v, want %v of %v", name, got.Mode(), got.ModTime(), want.Mode(), when)
		}
	}
	f, _ := os.Stat(to + "/a/b/f")
	h, _ := os.Stat(to + "/a/h")
	if !os.SameFile(f, h) {
		t.Error("the hard link is a file of its own")
	}
}

// /proc is left out below what is packed: its files have no end.
func TestPackLeavesKernelFileSystems(t *testing.T) {
	p := &packer{tar: tar.NewWriter(io.Discard), seen: map[inode]string{}}
	top, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	st, _ := statAt(top, ".")
	if err := p.pack(item{parent: top, name: "proc", entry: "n/proc", device: st.Dev}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.packed.Left, []string{"n/proc"}) {
		t.Errorf("left out %q, want /proc", p.packed.Left)
	}
}
