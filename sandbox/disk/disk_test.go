package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
)

// The program that unpacks is alone with the folder, and has what its work takes: to give files owners, modes and their
// capabilities; in the host's user namespace also what overlayfs's own marks take there.
func TestUnpackerIsWeak(t *testing.T) {
	p, err := usualPod()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "only"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for above := dir; above != os.TempDir() && above != "/"; above = filepath.Dir(above) { // the pod's root may be another user
		if err := os.Chmod(above, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	err = unpack(p, null, dir, &image.Layer{}, func(image.Event) {})
	want := fmt.Sprintf("effective %#[1]x permitted %#[1]x inheritable 0x0 bounding %#[1]x root only <nil>; "+
		"mount: operation not permitted; chroot: operation not permitted; unshare: operation not permitted", 0x8000001b)
	if p.MapName() == "host" {
		want = fmt.Sprintf("effective %#[1]x permitted %#[1]x inheritable 0x0 bounding %#[1]x root only <nil>; mount: <nil>; "+
			"chroot: operation not permitted; unshare: <nil>", 0x8020001b)
	}
	if err == nil || err.Error() != want {
		t.Errorf("it says\n%v\nnot\n%s", err, want)
	}
}

// fuzzedFile is a store with one pod and, in that, one container; the file of it is what is fuzzed.
func fuzzedFile(t *testing.T, name string, text []byte) *pod.Pod {
	t.Helper()
	p := &pod.Pod{ID: "0123456789ab", Root: t.TempDir()}
	dir := store.ContainersPath(p, "ba9876543210")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// FuzzContainer: a description that can't be read is a broken container, which can be removed; one that can is planned
// and shown without a panic.
func FuzzContainer(f *testing.F) {
	f.Add([]byte(`{"format":2,"id":"ba9876543210","pod":"0123456789ab","name":"c","argv":["x"],"disk":"/d/ba9876543210"}`))
	f.Add([]byte(`{"format":2,"id":"ba9876543210","argv":null,"env":[""],"root":{"kind":"layers","layers":[]},"volumes":[{}],"created":"x"}`))
	f.Add([]byte(`{"disk":"/ba9876543210","created":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p := fuzzedFile(t, "container.json", text)
		all, err := store.Containers(p)
		if err != nil || len(all) != 1 || all[0].ID != "ba9876543210" {
			t.Fatalf("%q: %v, %v", text, all, err)
		}
		c := all[0]
		_, _, _ = c.Title(), Folders(c), store.LogPath(c)
		if state, err := store.StateOf(c); err == nil && state == nil {
			t.Errorf("%q has no state", text)
		}
		if c.Broken != nil && filepath.Base(c.Disk) != c.ID {
			t.Errorf("%q: its files would be in %q", text, c.Disk)
		}
	})
}

// FuzzContainerState: whatever is written down, there is one of the states that there are, or an error.
func FuzzContainerState(f *testing.F) {
	f.Add([]byte(`{"status":"running","process":{"pid":1},"watcher":{"pid":1,"started":"7"}}`))
	f.Add([]byte(`{"status":"restarting","restart_at":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"status":"dreaming","process":{"pid":-1}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p := fuzzedFile(t, "state.json", text)
		c := &pod.Container{ID: "ba9876543210", In: p}
		if state, err := store.StateOf(c); (state == nil) == (err == nil) {
			t.Errorf("%q: %v, %v", text, state, err)
		}
	})
}

// TestRemoveDeep: what a pod wrote can be removed, be it folders in folders, more than there may be files open.
func TestRemoveDeep(t *testing.T) {
	outside := t.TempDir()
	dir := filepath.Join(t.TempDir(), "upper")
	deep := filepath.Join(dir, "a"+strings.Repeat("/d", 400))
	for _, path := range []string{deep + "/e", filepath.Join(dir, "b", "c", "d"), filepath.Join(dir, ".podsh-1", "x")} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Symlink(outside, path+"/link"), os.WriteFile(path+"/file", nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	kept := filepath.Join(outside, "file")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: 200, Max: files.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &files)
	if err := RemoveUpper((&pod.Pod{Upper: dir})); err != nil {
		t.Errorf("%.300s", err.Error())
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there: %v", err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
}
