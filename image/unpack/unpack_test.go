package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/podsh/podsh/image"
	"golang.org/x/sys/unix"
)

// TestMain is also the program that unpacks in its own root: unpack.test unpack FOLDER REQUEST <BLOB.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "unpack" {
		if err := unpackHere(os.Args[2], os.Args[3]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getuid() != 0 {
		becomeRoot()
	}
	os.Exit(m.Run())
}

// becomeRoot starts the tests anew as root of a user namespace, with all the ids that this user can have there: nobody
// else unpacks.
func becomeRoot() {
	args := []string{"unshare", "--user", "--map-root-user", "--map-auto", "--mount", "--"}
	if exec.Command(args[0], append(args[1:], "true")...).Run() != nil {
		args = slices.DeleteFunc(args, func(arg string) bool { return arg == "--map-auto" }) // no ranges
	}
	path, err := exec.LookPath(args[0])
	if err == nil {
		err = syscall.Exec(path, append(args, os.Args...), os.Environ())
	}
	fmt.Println("these tests need root, if only of a user namespace:", err)
	os.Exit(1)
}

func unpackHere(folder, words string) error {
	var request image.Request
	if err := json.Unmarshal([]byte(words), &request); err != nil {
		return err
	}
	// There is no /proc where it unpacks.
	if os.Getenv("PODSH_TEST_PEAK") != "" {
		status, err := os.Open("/proc/self/status")
		if err != nil {
			return err
		}
		defer func() { _, _ = io.Copy(os.Stdout, status) }()
	}
	if err := unix.Chroot(folder); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return Unpack(context.Background(), os.Stdin, &request, func(image.Event) {})
}

func skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("PODSH_MUST_WORK") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// needIDs skips where files can't belong to others: as an ordinary user without ranges.
func needIDs(t testing.TB) {
	t.Helper()
	if err := os.Lchown(t.TempDir(), 1000, 1000); err != nil {
		skip(t, "there is one id only: %v", err)
	}
}

func inUserNamespace() bool {
	text, _ := os.ReadFile("/proc/self/uid_map")
	return !strings.Contains(string(text), "4294967295")
}

// entry is one of a tar; the mode and the type have the usual values.
type entry struct {
	tar.Header
	data string
}

func file(name, data string) entry { return entry{tar.Header{Name: name}, data} }
func dir(name string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}
func symlink(name, to string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}, ""}
}
func hardlink(name, to string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}, ""}
}

func (e entry) write(w *tar.Writer) error {
	if e.Mode == 0 {
		e.Mode = 0o644
	}
	if e.ModTime.IsZero() {
		e.ModTime = time.Unix(1e9, 0)
	}
	e.Size = int64(len(e.data))
	if err := w.WriteHeader(&e.Header); err != nil {
		return err
	}
	_, err := w.Write([]byte(e.data))
	return err
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := e.write(w); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func requestOf(blob, tar []byte) *image.Request {
	return &image.Request{Do: image.Unpack, Layer: &image.Layer{Digest: digest(blob), DiffID: digest(tar), Size: int64(len(blob))}}
}

func blobFile(t testing.TB, blob []byte) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "blob")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.Write(blob); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	return f
}

// unpacked is what came of a layer.
type unpacked struct {
	root   string
	events []image.Event
	err    error
}

func (u *unpacked) warnings() (all []string) {
	for _, e := range u.events {
		if e.Warning != "" {
			all = append(all, e.Warning)
		}
	}
	return all
}

func (u *unpacked) lstat(t *testing.T, name string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(filepath.Join(u.root, name), &st); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return st
}

func (u *unpacked) mustWork(t *testing.T) *unpacked {
	t.Helper()
	if u.err != nil {
		t.Fatal(u.err)
	}
	return u
}

func unpackBlob(t testing.TB, blob []byte, request *image.Request) *unpacked {
	t.Helper()
	u := &unpacked{root: filepath.Join(t.TempDir(), "root")}
	if err := os.Mkdir(u.root, 0o755); err != nil {
		t.Fatal(err)
	}
	u.err = unpackInto(context.Background(), u.root, blobFile(t, blob), request, func(e image.Event) { u.events = append(u.events, e) })
	return u
}

// try unpacks entries; in one id only they all belong to root.
func try(t testing.TB, change func(*image.Request), entries ...entry) *unpacked {
	t.Helper()
	b := tarOf(t, entries...)
	r := requestOf(b, b)
	if change != nil {
		change(r)
	}
	return unpackBlob(t, b, r)
}

func gzipped(t testing.TB, b []byte) []byte {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return z.Bytes()
}

func zstandard(t testing.TB, b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// packedBy is what a program makes of bytes.
func packedBy(t testing.TB, command string, b []byte) []byte {
	t.Helper()
	words := strings.Fields(command)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdin = bytes.NewReader(b)
	packed, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return packed
}

// TestInUserNamespace runs the others once more as root of a user namespace.
func TestInUserNamespace(t *testing.T) {
	if inUserNamespace() {
		return // it is the others that are to run there
	}
	const size = 65536
	cmd := exec.Command(os.Args[0], "-test.v", "-test.short", "-test.run=^Test")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: size}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: size}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		skip(t, "user namespace: %v", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Log(string(out))
}
