package unpack

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podsh/podsh/image"
	"golang.org/x/sys/unix"
)

func TestCompressions(t *testing.T) {
	b := tarOf(t, dir("etc/"), file("etc/passwd", "root:x:0:0"), file("zeros", string(make([]byte, 3<<20))))
	for name, blob := range map[string][]byte{
		"plain": b, "gzip": gzipped(t, b), "zstd": zstandard(t, b),
		"xz": packedBy(t, "xz", b), "xz -9": packedBy(t, "xz -9", b), "bzip2": packedBy(t, "bzip2", b), "empty bzip2": packedBy(t, "bzip2", nil),
		"two xzs": append(packedBy(t, "xz", b[:700]), packedBy(t, "xz", b[700:])...), "two bzip2s": append(packedBy(t, "bzip2", b[:700]), packedBy(t, "bzip2", b[700:])...),
		"two gzips": append(gzipped(t, b[:700]), gzipped(t, b[700:])...),
	} {
		t.Run(name, func(t *testing.T) {
			if name == "empty bzip2" {
				unpackBlob(t, blob, requestOf(blob, nil)).mustWork(t)
				return
			}
			u := unpackBlob(t, blob, requestOf(blob, b)).mustWork(t)
			if got, err := os.ReadFile(filepath.Join(u.root, "etc/passwd")); string(got) != "root:x:0:0" {
				t.Errorf("%q, %v", got, err)
			}
			last := u.events[len(u.events)-1]
			if last.Done != int64(len(blob)) || last.Size != last.Done || last.Blob != digest(blob) {
				t.Errorf("last event: %+v", last)
			}
		})
	}
}

func TestBroken(t *testing.T) {
	b := tarOf(t, file("a", strings.Repeat("some text ", 9000)), file("b", "x"))
	noise := bytes.Repeat([]byte("no tar at all, "), 200)
	z := gzipped(t, b)
	flipped := bytes.Clone(z)
	flipped[len(flipped)-6] ^= 1
	for _, test := range []struct {
		name      string
		blob, tar []byte
		want      string
	}{
		{"gzip cut short", z[:len(z)/2], b, "cut short"},
		{"gzip of a header only", z[:6], b, "cut short"},
		{"zstd cut short", zstandard(t, b)[:60], b, "cut short"},
		{"xz cut short", packedBy(t, "xz", b)[:60], b, "cut short"},
		{"bzip2 cut short", packedBy(t, "bzip2", b)[:60], b, "cut short"},
		{"garbage after xz", append(packedBy(t, "xz", b), "garbage!!!!!"...), b, "not xz all through"},
		{"xz that wants a gigabyte", packedBy(t, "xz --lzma2=dict=1GiB", b), b, "of more than 64 MiB"},
		{"checksum of gzip", flipped, b, "checksum"},
		{"garbage after gzip", append(bytes.Clone(z), "garbage!!!!"...), b, "not gzip all through"},
		{"tar cut short", b[:5000], b[:5000], "cut short"},
		{"no tar", noise, noise, "not a tar archive"},
		{"no tar in gzip", gzipped(t, noise), noise, "not a tar archive"},
		{"another tar", z, b[:512], "the tar of layer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := unpackBlob(t, test.blob, requestOf(test.blob, test.tar))
			if u.err == nil || !strings.Contains(u.err.Error(), test.want) || !strings.Contains(u.err.Error(), digest(test.blob)) {
				t.Errorf("error: %v; want %q and the digest", u.err, test.want)
			}
		})
	}
}

func TestDigest(t *testing.T) {
	other := digest([]byte("other"))
	u := try(t, func(r *image.Request) { r.Layer.Digest = other }, file("a", "a"))
	b := tarOf(t, file("a", "a"))
	if u.err == nil || !strings.Contains(u.err.Error(), other) || !strings.Contains(u.err.Error(), digest(b)) {
		t.Error(u.err)
	}
	// What follows the end of the archive belongs to the stream.
	long := append(bytes.Clone(b), make([]byte, 1<<20)...)
	unpackBlob(t, gzipped(t, long), requestOf(gzipped(t, long), long)).mustWork(t)
	if u := unpackBlob(t, gzipped(t, long), requestOf(gzipped(t, long), b)); !errors.Is(u.err, errDigest) {
		t.Error(u.err)
	}
	try(t, nil).mustWork(t)
	unpackBlob(t, nil, requestOf(nil, nil)).mustWork(t)
}

func TestLimits(t *testing.T) {
	files := []entry{file("a", "1234567890"), file("b", "1234567890"), dir("c/")}
	bytes := func(n int64) func(*image.Request) { return func(r *image.Request) { r.Limits.Bytes = n } }
	entries := func(n int64) func(*image.Request) { return func(r *image.Request) { r.Limits.Entries = n } }
	try(t, bytes(20), files...).mustWork(t)
	try(t, entries(3), files...).mustWork(t)
	for want, change := range map[string]func(*image.Request){"more than 19 bytes": bytes(19), "more than 2 entries": entries(2)} {
		u := try(t, change, files...)
		if !errors.Is(u.err, errLimit) || !strings.Contains(u.err.Error(), want) {
			t.Errorf("%v; want %q", u.err, want)
		}
	}
	huge := sparseTar("huge", 1<<60)
	r := requestOf(huge, huge)
	r.Limits.Bytes = 1 << 30
	if u := unpackBlob(t, huge, r); !errors.Is(u.err, errLimit) {
		t.Error(u.err)
	}
	bomb := gzipped(t, append(tarOf(t, file("a", "a")), make([]byte, 64<<20)...))
	r = requestOf(bomb, nil)
	r.Limits.Bytes = 1 << 20
	if u := unpackBlob(t, bomb, r); !errors.Is(u.err, errLimit) {
		t.Error(u.err)
	}
}

func TestAttributes(t *testing.T) {
	needIDs(t)
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_raw=ep, v2
	pax := func(key, value string) map[string]string { return map[string]string{paxXattr + key: value} }
	when := time.Unix(1234567890, 500)
	u := try(t, nil,
		entry{tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o711, Uid: 3, Gid: 4, ModTime: when, Format: tar.FormatPAX}, ""},
		entry{tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o1777, ModTime: when, Format: tar.FormatPAX}, ""},
		entry{tar.Header{Name: "d/su", Mode: 0o4755, Uid: 7, Gid: 8, ModTime: when, Format: tar.FormatPAX}, "su"},
		entry{tar.Header{Name: "d/ping", Mode: 0o755, PAXRecords: pax("security.capability", capability)}, "ping"},
		hardlink("d/ping6", "d/ping"),
		entry{tar.Header{Name: "d/user", PAXRecords: pax("user.mime", "text")}, "text"},
		entry{tar.Header{Name: "d/lsm", PAXRecords: pax("security.selinux", "x")}, "text"},
		entry{tar.Header{Name: "d/ovl", PAXRecords: pax("user.overlay.redirect", "/x")}, "text"},
		entry{tar.Header{Name: "d/sum", PAXRecords: pax("trusted.md5sum", "x")}, "text"},
		entry{tar.Header{Name: "./dev/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, ""},
		entry{tar.Header{Name: "d/fifo", Typeflag: tar.TypeFifo, Mode: 0o600}, ""},
		entry{tar.Header{Name: "d/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, ""},
		entry{tar.Header{Name: "d/sda", Typeflag: tar.TypeBlock, Devmajor: 8}, ""},
	).mustWork(t)
	for name, want := range map[string][3]uint32{
		"": {unix.S_IFDIR | 0o711, 3, 4}, "d": {unix.S_IFDIR | 0o1777, 0, 0},
		"d/su": {unix.S_IFREG | 0o4755, 7, 8}, "d/fifo": {unix.S_IFIFO | 0o600, 0, 0},
	} {
		st := u.lstat(t, name)
		if got := [3]uint32{st.Mode, st.Uid, st.Gid}; got != want {
			t.Errorf("%q: %o, want %o", name, got, want)
		}
		if got := time.Unix(st.Mtim.Unix()); !got.Equal(when) && name != "d/fifo" {
			t.Errorf("%q: modified %v", name, got)
		}
	}
	for name, want := range map[string]string{"d/ping": "security.capability", "d/ping6": "security.capability", "d/user": "user.mime", "d/lsm": "", "d/ovl": ""} {
		buffer := make([]byte, 100)
		n, err := unix.Llistxattr(filepath.Join(u.root, name), buffer)
		if got := strings.TrimRight(string(buffer[:max(n, 0)]), "\x00"); got != want {
			t.Errorf("%s: xattrs %q, %v; want %q", name, got, err, want)
		}
	}
	want := []string{`device nodes left out of the layer: 2, the first is "d/null"`, `extended attributes left out of the layer: 1, the first is "d/sum: trusted.md5sum"`}
	if got := u.warnings(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("warnings: %q", got)
	}
}

func TestSquash(t *testing.T) {
	u := try(t, func(r *image.Request) { r.Squash = true },
		entry{tar.Header{Name: "root", Mode: 0o6755}, ""},
		entry{tar.Header{Name: "user", Mode: 0o6755, Uid: 5000000}, ""},
		entry{tar.Header{Name: "group", Mode: 0o6755, Gid: 42}, ""},
		entry{tar.Header{Name: "d/", Mode: 0o2755, Typeflag: tar.TypeDir, Uid: 1, Gid: 1}, ""},
	).mustWork(t)
	for name, want := range map[string]uint32{"root": 0o6755, "user": 0o2755, "group": 0o4755, "d": 0o755} {
		if st := u.lstat(t, name); st.Mode&0o7777 != want || st.Uid != 0 || st.Gid != 0 {
			t.Errorf("%s: mode %o, owner %d:%d; want mode %o", name, st.Mode, st.Uid, st.Gid, want)
		}
	}
	if got := u.warnings(); len(got) != 1 || !strings.Contains(got[0], `3, the first is "user"`) {
		t.Errorf("warnings: %q", got)
	}
}

func TestUnmapped(t *testing.T) {
	if !inUserNamespace() {
		return // all ids are mapped: TestInUserNamespace comes here once more
	}
	for _, e := range []entry{file("f", ""), dir("./")} {
		e.Uid = 70000
		u := try(t, nil, e)
		var hinted interface{ Hints() []string }
		if u.err == nil || !strings.Contains(u.err.Error(), "user 70000") || !errors.As(u.err, &hinted) || !strings.Contains(hinted.Hints()[0], "/etc/subuid") {
			t.Errorf("%v", u.err)
		}
	}
}

// TestManySmallFiles takes more than one piece; the folders keep their times across pieces.
func TestManySmallFiles(t *testing.T) {
	if testing.Short() { // TestInUserNamespace: once is enough
		return
	}
	entries := []entry{dir("d/"), dir("d/e/")}
	for i := range 20000 {
		entries = append(entries, file(fmt.Sprintf("d/e/%d", i), "small"))
	}
	u := try(t, nil, append(entries, file("d/last", ""))...).mustWork(t)
	for _, name := range []string{"d", "d/e"} {
		if st := u.lstat(t, name); st.Mtim.Sec != 1e9 {
			t.Errorf("%s: modified %d", name, st.Mtim.Sec)
		}
	}
	if all, err := os.ReadDir(filepath.Join(u.root, "d/e")); len(all) != 20000 {
		t.Errorf("%d files, %v", len(all), err)
	}
}

// TestOwnRoot unpacks as podsh does: the root is the folder, and nothing else is there.
func TestOwnRoot(t *testing.T) {
	b := tarOf(t, dir("./"), dir("etc/"), symlink("lib", "/usr/lib"), file("usr/lib/a", "a"), file("lib/b", "b"),
		hardlink("c", "lib/b"), file("etc/.wh.gone", ""), file("etc/.wh..wh..opq", ""))
	words, err := json.Marshal(requestOf(b, b))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	cmd := exec.Command(os.Args[0], "unpack", root, string(words))
	cmd.Stdin = blobFile(t, b)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) != 0 {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"usr/lib/a", "usr/lib/b", "c", "etc/gone"} {
		if _, err := os.Lstat(filepath.Join(root, name)); err != nil {
			t.Error(err)
		}
	}
}
