package tarcopy

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Where Place is tested: top/dest is the folder it unpacks into, and nothing else below top may change.
var around = []string{
	"d dest/folder", "f dest/file old", "f dest/folder/kept k", "p dest/fifo",
	"l dest/out ../outside", "l dest/outfile ../outside/secret", "l dest/near folder",
	"d outside/sub", "f outside/secret s", "l todest dest",
}

var placements = []struct {
	name, rename string
	tar          []string
	max          int64
	want, err    string // want: the lines that are new
}{
	{name: "file", tar: []string{"f n new"}, want: "f n new"},
	{name: "renamed", rename: "r", tar: []string{"d n/", "f n/x new", "h n/y n/x", "l n/z x"}, want: "d r\nf r/x new\nf r/y new\nl r/z x"},
	{name: "contents", rename: ".", tar: []string{"d n/", "f n/x new"}, want: "f x new"},
	{name: "of tar -c .", rename: "r", tar: []string{"d ./", "f ./x new"}, want: "d r\nf r/x new"},
	{name: "no folder entry", tar: []string{"f n/m/x new"}, want: "d n\nd n/m\nf n/m/x new"},
	{name: "replaced", rename: "file", tar: []string{"f n new"}, want: "f file new"},
	{name: "link replaced", rename: "outfile", tar: []string{"f n new"}, want: "f outfile new"},
	{name: "merged", rename: "folder", tar: []string{"d n/", "f n/x new"}, want: "f folder/x new"},
	{name: "twice", tar: []string{"f n one", "f n two"}, want: "f n two"},
	{name: "many folders", tar: []string{"d n/", "d n/a/", "f n/a/x 1", "d n/b/", "f n/b/x 2", "h n/a/y n/b/x", "f n/a/z 3"},
		want: "d n\nd n/a\nd n/b\nf n/a/x 1\nf n/a/y 2\nf n/a/z 3\nf n/b/x 2"},
	{name: "enough bytes", tar: []string{"f n 1234"}, max: 516, want: "f n 1234"},

	{name: "too many bytes", tar: []string{"f n 12345"}, max: 516, err: "the copy is larger than 516 bytes"},
	{name: "too many entries", tar: []string{"d n/", "d n/a/"}, max: 1000, want: "d n", err: "the copy is larger"},
	{name: "folder onto file", rename: "file", tar: []string{"d n/"}, err: `"file" is not a folder, and a folder`},
	{name: "below file", rename: "file", tar: []string{"f n/x new"}, err: `"file" is not a folder`},
	{name: "file onto folder", rename: "folder", tar: []string{"f n new"}, err: `"folder" is a folder, and a file`},
	{name: "file onto the top", rename: ".", tar: []string{"f n new"}, err: `"n" is no folder`},
	{name: "onto fifo", rename: "fifo", tar: []string{"f n new"}, err: `"fifo" is no file, folder or link`},

	{name: "dots", tar: []string{"f n/../../outside/new x"}, err: "leads out of the copy"},
	{name: "dots first", tar: []string{"f ../outside/new x"}, err: "leads out of the copy"},
	{name: "dots first, renamed", rename: "r", tar: []string{"f ../new x"}, err: "leads out of the copy"},
	{name: "absolute", tar: []string{"f /n x"}, err: "has an absolute name"},
	{name: "own link", tar: []string{"d n/", "l n/l ../../outside", "f n/l/new x"}, want: "d n\nl n/l ../../outside", err: `"n/l" is a symbolic link`},
	{name: "own link as name", tar: []string{"l n /", "f n/tmp/new x"}, want: "l n /", err: `"n" is a symbolic link`},
	{name: "own link, file", tar: []string{"l n ../outside/secret", "f n x"}, want: "f n x"},
	{name: "link that was there", rename: "out", tar: []string{"f n/new x"}, err: `"out" is a symbolic link`},
	{name: "link to a sibling", rename: "near", tar: []string{"f n/new x"}, err: `"near" is a symbolic link`},
	{name: "folder onto link", rename: "out", tar: []string{"d n/"}, err: `"out" is not a folder`},
	{name: "hard link outside", tar: []string{"h n ../outside/secret"}, err: "leads out of the copy"},
	{name: "absolute hard link", tar: []string{"h n /etc/passwd"}, err: "has an absolute name"},
	{name: "hard link through link", tar: []string{"h n out/secret"}, err: "is no file of this copy"},
	{name: "hard link to another's", tar: []string{"h n file"}, err: "is no file of this copy"},
	{name: "hard link to link", tar: []string{"f n x", "l n ../outside/secret", "h m n"}, want: "l m ../outside/secret\nl n ../outside/secret"},
	{name: "hard link to itself, by another name", tar: []string{"f n x", "h m n", "h m n", "h n m"}, want: "f m x\nf n x"},
	{name: "link that can't be", rename: "file", tar: []string{"l n " + strings.Repeat("x", 5000)}, err: "file name too long"},
	{name: "hard link to itself", tar: []string{"f n x", "h n n"}, want: "f n x", err: "is no file of this copy"},
	{name: "device", tar: []string{"c n"}, err: `"n" is no file, folder or link`},
	{name: "fifo", tar: []string{"p n"}, err: `"n" is no file, folder or link`},
	{name: "long", tar: []string{"f " + strings.Repeat("a/", 2048) + "n x"}, err: "a name is too long"},
	{name: "rename leads out", rename: "..", err: "is no name"},
	{name: "rename of two", rename: "a/b", err: "is no name"},
}

func TestPlace(t *testing.T) {
	for _, c := range placements {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			grow(t, top, around...)
			outside, before := shown(t, top, "dest"), shown(t, top+"/dest", "")
			err := Place(openRoot(t, top), "todest", c.rename, archive(c.tar...), Options{MaxBytes: c.max})
			wantError(t, err, c.err)
			if got := shown(t, top, "dest"); got != outside {
				t.Errorf("outside there is\n%s\nwant\n%s", got, outside)
			}
			var added []string
			for line := range strings.SplitSeq(shown(t, top+"/dest", ""), "\n") {
				if !strings.Contains("\n"+before+"\n", "\n"+line+"\n") {
					added = append(added, line)
				}
			}
			if got := strings.Join(added, "\n"); got != c.want {
				t.Errorf("new is\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// A tar that ends early leaves no half file, and of a file that was there all of it.
func TestPlaceTruncated(t *testing.T) {
	for _, before := range [][]string{nil, {"f n old"}, {"l n nowhere"}} {
		b := archive("f n " + strings.Repeat("x", 4000))
		b.Truncate(b.Len() - 3000)
		dir := t.TempDir()
		grow(t, dir, before...)
		wantError(t, Place(openRoot(t, dir), ".", "", b, Options{}), `write "n": unexpected EOF`)
		if got := shown(t, dir, ""); got != strings.Join(before, "\n") {
			t.Errorf("left %.60s", got)
		}
	}
}

// Folders that were made before an error have their modes: nobody would give them those later.
func TestPlaceDressesFoldersAfterAnError(t *testing.T) {
	dir := t.TempDir()
	wantError(t, Place(openRoot(t, dir), ".", "", archive("d n/", "f n/x new", "p n/fifo"), Options{}), "is no file, folder or link")
	if info, err := os.Stat(dir + "/n"); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A file of zeros takes no room, wherever they are, and is as long as it was.
func TestPlaceLeavesHoles(t *testing.T) {
	dir := t.TempDir()
	zeros := strings.Repeat("\x00", 1<<20)
	for _, text := range []string{zeros + "end", "begin" + zeros, zeros, "begin" + zeros + "end" + zeros, "\x00", ""} {
		wantError(t, Place(openRoot(t, dir), ".", "", archive("f n "+text), Options{}), "")
		got, err := os.ReadFile(dir + "/n")
		if err != nil || string(got) != text {
			t.Errorf("%d bytes are %d, %v", len(text), len(got), err)
		}
		info, err := os.Stat(dir + "/n")
		if err != nil {
			t.Fatal(err)
		}
		if taken := info.Sys().(*syscall.Stat_t).Blocks * 512; taken > 512<<10 {
			t.Errorf("%d bytes take %d", len(text), taken)
		}
	}
}

// A tar that is damaged behind its first entry is one.
func TestPlaceDamaged(t *testing.T) {
	noise := bytes.NewReader(bytes.Repeat([]byte("noise"), 1000))
	b := archive("f n new")
	b.Truncate(b.Len() - 1024)
	wantError(t, Place(openRoot(t, t.TempDir()), ".", "", io.MultiReader(b, noise), Options{}), "read the tar: archive/tar: invalid tar header")
	for _, text := range []string{"noise", strings.Repeat("noise", 1000)} {
		wantError(t, Place(openRoot(t, t.TempDir()), ".", "", strings.NewReader(text), Options{}), "no tar, or a compressed one")
	}
}

func TestPlaceNowhere(t *testing.T) {
	dir := t.TempDir()
	grow(t, dir, "f file x", "l out /..", "l gone /none")
	root := openRoot(t, dir)
	for name, want := range map[string]string{
		"none": `no folder "none"`, "gone": `no folder "gone"`, "file": `"file" is not a folder`, "out": "",
	} {
		wantError(t, Place(root, name, "", archive("f n x"), Options{}), want)
	}
	if _, err := os.Lstat(dir + "/n"); err != nil {
		t.Error("an absolute link doesn't start at root")
	}
}

// Of setuid and setgid nothing is left, but where owners are kept.
func TestPlaceMode(t *testing.T) {
	for _, owners := range []bool{false, true} {
		if owners && os.Geteuid() != 0 {
			continue // nothing to test: only root may give files away, chown(2)
		}
		dir := t.TempDir()
		err := Place(openRoot(t, dir), ".", "", archive("d n/", "f n/x new"), Options{Owners: owners})
		wantError(t, err, "")
		want := os.FileMode(0o755)
		if owners {
			want |= os.ModeSetuid | os.ModeSetgid
		}
		for _, name := range []string{"n", "n/x"} {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode() &^ os.ModeDir; got != want {
				t.Errorf("owners %v: %s is %v, want %v", owners, name, got, want)
			}
		}
	}
}

// Somebody exchanges the folder that is written into with a link that leads out, again and again.
func TestPlaceWhileLinksArePlanted(t *testing.T) {
	top := t.TempDir()
	grow(t, top, around...)
	grow(t, top, "d dest/n/a", "l dest/n/b ../../outside")
	before := shown(t, top, "dest")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, top+"/dest/n/a", unix.AT_FDCWD, top+"/dest/n/b", unix.RENAME_EXCHANGE)
			}
		}
	}()
	root, refused := openRoot(t, top), 0
	for range 300 {
		if Place(root, "dest", "", archive("d n/", "d n/a/", "f n/a/secret x", "f n/c x", "h n/a/sub n/c"), Options{}) != nil {
			refused++
		}
	}
	close(stop)
	<-stopped
	if after := shown(t, top, "dest"); after != before {
		t.Errorf("outside there was\n%s\nand is\n%s", before, after)
	}
	t.Logf("%d of 300 were refused", refused)
}

// A tree may be as deep as its names can be long. Each entry has to be found from the top, but that must not take longer
// than a moment: whoever fills a pod's folder chooses how deep it is.
func TestPlaceDeep(t *testing.T) {
	top := t.TempDir()
	var lines []string
	for n := range 1500 {
		lines = append(lines, "d n"+strings.Repeat("/d", n))
	}
	began := time.Now()
	if err := Place(openRoot(t, top), ".", "", archive(lines...), Options{}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if _, err := os.Stat(top + "/n" + strings.Repeat("/d", 1499)); err != nil {
		t.Error(err)
	}
}
