package unpack

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/podsh/podsh/image"
	"golang.org/x/sys/unix"
)

// outside makes a folder that a layer aims at.
func outside(t testing.TB) string {
	t.Helper()
	folder := t.TempDir()
	for name, data := range map[string]string{"secret": "secret", "d/file": "file"} {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// picture is all that can be seen of a folder, except for what is below the folder left out.
func picture(t testing.TB, folder, except string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if path == except {
			return filepath.SkipDir
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintln(&b, path, info.Mode(), info.Size(), st.Mtim, st.Ctim, st.Nlink, st.Uid, st.Gid)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestHostile(t *testing.T) {
	out := outside(t)
	up := strings.Repeat("../", 30)
	for _, test := range []struct {
		name    string
		entries []entry
		want    string   // of the error; none: it works
		there   []string // in the root
	}{
		{"dots", []entry{file(up+strings.TrimPrefix(out, "/")+"/new", "x")}, "", []string{out + "/new"}},
		{"dots inside", []entry{dir("a/"), file("a/../../../b", "x")}, "", []string{"b"}},
		{"absolute", []entry{file(out+"/secret", "x")}, "", []string{out + "/secret"}},
		{"only dots", []entry{file("..", "x")}, "", nil},
		{"the root is a file", []entry{file(".", "x"), file("a", "")}, "", []string{"a"}},
		{"the root is a symlink", []entry{symlink("/", out), file("secret", "x")}, "", []string{"secret"}},
		{"absolute symlink as parent", []entry{symlink("a", out), file("a/secret", "x")}, "", []string{out + "/secret"}},
		{"relative symlink as parent", []entry{symlink("a", up+out), file("a/secret", "x")}, "", []string{out + "/secret"}},
		{"two symlinks as parents", []entry{symlink("a", "/b"), symlink("b", out), file("a/d/file", "x")}, "", []string{out + "/d/file"}},
		{"symlinks in a ring", []entry{symlink("a", "b"), symlink("b", "a"), file("a/c", "x")}, "too many", nil},
		{"file in the place of a symlink", []entry{symlink("a", out+"/secret"), file("a", "x")}, "", []string{"a"}},
		{"folder in the place of a symlink", []entry{symlink("a", out), dir("a/"), file("a/secret", "x")}, "", []string{"a/secret"}},
		{"symlink in the place of a folder", []entry{dir("a/"), file("a/b", ""), symlink("a", out)}, "", []string{"a"}},
		{"symlink in the place of folders", []entry{dir("a/"), dir("a/b/"), symlink("a", out), dir("a/c/")}, "", []string{out + "/c"}},
		{"hard link out", []entry{hardlink("a", out+"/secret")}, "no such file", nil},
		{"hard link by dots", []entry{hardlink("a", up+out+"/secret")}, "no such file", nil},
		{"hard link through a symlink", []entry{symlink("s", out), hardlink("a", "s/secret"), file("a", "x")}, "no such file", nil},
		{"hard link to a symlink", []entry{symlink("s", out+"/secret"), hardlink("a", "s")}, "", []string{"a"}},
		{"hard link to itself", []entry{file("a", "x"), hardlink("a", "./a")}, "", []string{"a"}},
		{"hard link to a folder", []entry{dir("a/"), hardlink("b", "a")}, "not permitted", nil},
		{"hard link to the root", []entry{hardlink("b", "/")}, "not permitted", nil},
		{"file as parent", []entry{file("a", ""), file("a/b", "")}, "not a directory", nil},
		{"whiteout through a symlink", []entry{symlink("a", out), file("a/.wh.secret", "")}, "", []string{out + "/secret"}},
		{"opaque through a symlink", []entry{symlink("a", out), file("a/.wh..wh..opq", "")}, "", nil},
		{"whiteout of a symlink's place", []entry{file("a/.wh.secret", ""), symlink("a", out)}, "", nil},
		{"whiteout of nothing", []entry{file("a/.wh.", "")}, "invalid whiteout", nil},
		{"whiteout of the folder", []entry{file("a/.wh..", "")}, "invalid whiteout", nil},
		{"whiteout of the parent", []entry{file("a/.wh...", "")}, "invalid whiteout", nil},
		{"device", []entry{{tar.Header{Name: "sda", Typeflag: tar.TypeBlock, Devmajor: 8, Mode: 0o666}, ""}}, "", nil},
		{"aufs", []entry{dir(".wh..wh.plnk/"), file(".wh..wh.plnk/1", "x")}, "", nil},
		{"long name", []entry{file(strings.Repeat("a/", 300000), "")}, "too long", nil},
		{"unknown type", []entry{{tar.Header{Name: "a", Typeflag: 'Z'}, ""}}, "unknown", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := picture(t, out, "")
			u := try(t, nil, test.entries...)
			if after := picture(t, out, ""); after != before {
				t.Errorf("outside was:\n%s\nis:\n%s", before, after)
			}
			if (u.err == nil) != (test.want == "") || u.err != nil && !strings.Contains(u.err.Error(), test.want) {
				t.Fatalf("error %v; want %q", u.err, test.want)
			}
			if u.err != nil && strings.Contains(u.err.Error(), "failed to") {
				t.Errorf("error %v", u.err)
			}
			for _, name := range test.there {
				u.lstat(t, name)
			}
		})
	}
}

func TestNoSpace(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=1m"); err != nil {
		skip(t, "mount tmpfs on %s: %v", root, err)
	}
	defer func() { _ = unix.Unmount(root, unix.MNT_DETACH) }()
	b := tarOf(t, file("big", strings.Repeat("x", 4<<20)))
	err := unpackInto(t.Context(), root, blobFile(t, b), requestOf(b, b), func(image.Event) {})
	if err == nil || !strings.Contains(err.Error(), `"big": no space left`) || !strings.Contains(err.Error(), digest(b)) {
		t.Error(err)
	}
}

// TestWhiteouts looks at layers the way the kernel does: as an overlay.
func TestWhiteouts(t *testing.T) {
	lower := try(t, nil, file("gone", ""), file("kept", "old"), dir("dir/"), file("dir/old", ""), dir("opq/"), file("opq/old", ""),
		dir("both/"), file("both/old", ""), dir("both2/"), file("both2/old", ""), dir("alldir/"), file("alldir/old", ""),
		dir("through/"), file("through/old", ""), symlink("s", "through"), file("file", "old")).mustWork(t)
	upper := try(t, nil,
		file(".wh.gone", ""), dir("dir/"), file("dir/.wh.old", ""),
		dir("opq/"), file("opq/.wh..wh..opq", ""), file("opq/new", ""),
		file(".wh.both", ""), file("both/new", ""), dir("both2/"), file("both2/new", ""), file(".wh.both2", ""),
		file(".wh.alldir", ""), dir("through/"), symlink("s", "through"), file("s/.wh.old", ""),
		file("file", "new"), file(".wh.file", ""), file(".wh.never", "")).mustWork(t)
	if st := upper.lstat(t, "dir"); st.Mtim.Sec != 1e9 {
		t.Errorf("dir: modified %d", st.Mtim.Sec)
	}
	merged := t.TempDir()
	options := "lowerdir=" + upper.root + ":" + lower.root
	if inUserNamespace() {
		options += ",userxattr"
	}
	if err := unix.Mount("overlay", merged, "overlay", unix.MS_RDONLY, options); err != nil {
		skip(t, "mount overlay with %s: %v", options, err)
	}
	defer func() { _ = unix.Unmount(merged, unix.MNT_DETACH) }()
	var names []string
	err := filepath.WalkDir(merged, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != merged {
			names = append(names, path[len(merged)+1:])
		}
		return err
	})
	const want = "both both/new both2 both2/new dir file kept opq opq/new s through"
	if got := strings.Join(names, " "); got != want || err != nil {
		t.Errorf("%v\ngot  %s\nwant %s", err, got, want)
	}
	if got, err := os.ReadFile(filepath.Join(merged, "file")); string(got) != "new" {
		t.Errorf("file: %q, %v", got, err)
	}
}

// FuzzUnpack makes a layer of lines "type name target" and looks at what is around the root afterwards.
func FuzzUnpack(f *testing.F) {
	for _, s := range []string{
		"0 a/b data\n5 a/ -", "2 a ../../..\n0 a/x x", "2 a /\n1 b a/../../../etc/passwd", "0 .wh.a -\n5 a -",
		"5 a -\n0 a/.wh..wh..opq -\n2 a ..", "2 a ..\n0 a/.wh.beside -", "6 f -\n1 g f\n0 g x", "2 s ../beside\n1 a s\n0 a x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, script string) {
		var entries []entry
		for line := range strings.Lines(script) {
			words := strings.Fields(line)
			if len(words) != 3 || strings.Contains(line, "\x00") || len(line) > 2000 || len(entries) > 50 {
				return
			}
			e := entry{tar.Header{Name: words[1], Typeflag: words[0][0], Linkname: words[2]}, ""}
			switch e.Typeflag {
			case tar.TypeReg:
				e.data, e.Linkname = words[2], ""
			case tar.TypeDir, tar.TypeFifo, tar.TypeChar:
				e.Linkname = ""
			case tar.TypeSymlink, tar.TypeLink:
			default:
				return
			}
			if e.write(tar.NewWriter(io.Discard)) == nil {
				entries = append(entries, e)
			}
		}
		blob := tarOf(t, entries...)
		around := t.TempDir()
		root := filepath.Join(around, "root")
		for _, name := range []string{root, filepath.Join(around, "beside")} {
			if err := os.Mkdir(name, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		request := requestOf(blob, blob)
		request.Limits = image.Limits{Bytes: 1 << 20, Entries: 100}
		before := picture(t, around, root)
		err := unpackInto(t.Context(), root, blobFile(t, blob), request, func(image.Event) {})
		if after := picture(t, around, root); after != before {
			t.Errorf("error %v; around the root was:\n%s\nis:\n%s", err, before, after)
		}
	})
}

// BenchmarkUnpack unpacks a layer of 2,000 files.
func BenchmarkUnpack(b *testing.B) {
	var entries []entry
	for i := range 2000 {
		entries = append(entries, file(fmt.Sprintf("d/%d", i), strings.Repeat("some text ", 800)))
	}
	tar := tarOf(b, entries...)
	blob := gzipped(b, tar)
	for b.Loop() {
		if u := unpackBlob(b, blob, requestOf(blob, tar)); u.err != nil {
			b.Fatal(u.err)
		}
	}
}
