package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// use is a Use that removes layers as anybody would.
func use(layers map[string]bool) *Use {
	return &Use{Images: map[string][]string{}, Layers: layers, Remove: os.RemoveAll}
}

// unpackAll makes the layers of an image, as unpacking does.
func unpackAll(t *testing.T, s *Store, img *Image) {
	t.Helper()
	for _, layer := range img.Layers {
		fresh, err := s.NewLayer("map", layer, os.RemoveAll)
		if err != nil {
			t.Fatal(err)
		}
		if fresh == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(fresh.Dir, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := fresh.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// files lists what is in a folder of the store.
func files(t *testing.T, s *Store, elements ...string) []string {
	t.Helper()
	entries, err := os.ReadDir(s.path(elements...))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return all
}

// TestRemove: what another image has, or a container, stays.
func TestRemove(t *testing.T) {
	s := newStore(t)
	a := newImage(t, s, "a", []string{webName}, Origin{Digest: "sha256:" + strings.Repeat("3", 64)}, "shared", "a", "used")
	b := newImage(t, s, "b", []string{topName}, Origin{Digest: "sha256:" + strings.Repeat("4", 64)}, "shared", "b")
	unpackAll(t, s, a)
	unpackAll(t, s, b)
	used := s.LayerPath("map", a.Layers[2])
	if err := s.Remove(a, given(use(map[string]bool{used: true}))); err != nil {
		t.Fatal(err)
	}
	if got := files(t, s, "blobs", "sha256"); len(got) != 4 {
		t.Errorf("blobs: %v", got)
	}
	for layer, want := range map[Layer]bool{a.Layers[0]: true, a.Layers[1]: false, a.Layers[2]: true, b.Layers[1]: true} {
		if s.HasLayer("map", layer) != want {
			t.Errorf("layer %v is there: %t", layer, !want)
		}
	}
	if got := files(t, s, "layers", "map"); len(got) != 3 {
		t.Errorf("left: %v", got)
	}
	if img, err := s.Find(topName); err != nil || img.Config.Cmd[0] != "b" {
		t.Error(img, err)
	}
}

// TestRemoveMeanwhile: blobs that somebody is about to have stay.
func TestRemoveMeanwhile(t *testing.T) {
	s := newStore(t)
	img := newImage(t, s, "a", []string{webName}, Origin{}, "a")
	done, err := s.Bringing()
	if err != nil {
		t.Fatal(err)
	}
	blob := put(t, s, []byte("brought"))
	if err := s.Remove(img, given(use(nil))); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.BlobPath(blob.Digest)); err != nil {
		t.Error(err)
	}
	done()
	if _, bytes, err := s.Prune(false, given(use(nil))); err != nil || bytes == 0 || len(files(t, s, "blobs", "sha256")) > 0 {
		t.Error(bytes, err)
	}
}

func TestPrune(t *testing.T) {
	s := newStore(t)
	named := newImage(t, s, "named", []string{webName}, Origin{}, "a")
	newImage(t, s, "nameless", nil, Origin{}, "b")
	used := newImage(t, s, "used", nil, Origin{}, "c")
	broken := newImage(t, s, "broken", []string{topName}, Origin{}, "d")
	if err := os.Remove(s.BlobPath(broken.ID)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(topName); err == nil || !strings.Contains(err.Error(), broken.Digest) {
		t.Error("broken: ", err)
	}
	old, fresh := time.Now().Add(-25*time.Hour), strings.Repeat("5", 64)
	for name, when := range map[string]time.Time{fresh: time.Now(), strings.Repeat("6", 64): old, "blob-7": time.Now()} {
		path := s.path("partial", name)
		if err := errors.Join(os.WriteFile(path, []byte(name), 0o600), os.Chtimes(path, when, when)); err != nil {
			t.Fatal(err)
		}
	}
	making, err := s.NewLayer("map", Layer{DiffID: "sha256:" + strings.Repeat("1", 64)}, os.RemoveAll)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"new-" + strings.Repeat("2", 64), "gone-" + strings.Repeat("4", 64) + "-0", strings.Repeat("4", 64)} {
		if err := os.MkdirAll(s.path("layers", "map", name, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	u := use(nil)
	u.Images[used.Digest] = []string{"container"}
	removed, _, err := s.Prune(false, given(u))
	if err != nil || len(removed) != 1 || removed[0].Config.Cmd[0] != "nameless" {
		t.Errorf("%+v %v", removed, err)
	}
	if got := fmt.Sprint(names(t, s)); got != "map[named:[docker.io/library/web:1] used:[]]" {
		t.Error(got)
	}
	if got := fmt.Sprint(files(t, s, "partial")); got != "["+fresh+"]" {
		t.Error(got)
	}
	if got := files(t, s, "layers", "map"); len(got) != 2 || got[0] != "lock-"+strings.Repeat("1", 64) {
		t.Errorf("left: %v", got) // the one in the making, and its lock
	}
	if err := making.Commit(); err != nil {
		t.Error(err)
	}
	if removed, _, err = s.Prune(true, given(u)); err != nil || len(removed) != 1 || removed[0].ID != named.ID {
		t.Errorf("%+v %v", removed, err)
	}
}

// TestLockFile: a lock whose file was removed meanwhile is none.
func TestLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, _, err := lockFile(path, unix.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan func())
	go func() {
		unlock, _, err := lockFile(path, unix.LOCK_EX)
		if err != nil {
			t.Error(err)
		}
		waits <- unlock
	}()
	time.Sleep(20 * time.Millisecond) // it waits for the lock of a file that is gone soon
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, _, err := lockFile(path, unix.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	first()
	select {
	case <-waits:
		t.Error("two have the lock")
	case <-time.After(20 * time.Millisecond):
		second()
		(<-waits)()
	}
}

// TestNewLayer: of two that want a layer one makes it, and the other finds it there.
func TestNewLayer(t *testing.T) {
	s := newStore(t)
	layer := Layer{DiffID: "sha256:" + strings.Repeat("1", 64)}
	first, err := s.NewLayer("map", layer, os.RemoveAll)
	if err != nil || first == nil {
		t.Fatal(first, err)
	}
	results := make(chan *NewLayer)
	for range 2 {
		go func() {
			second, err := s.NewLayer("map", layer, os.RemoveAll)
			if err != nil {
				t.Error(err)
			}
			results <- second
			if second != nil {
				if err := second.Commit(); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	select {
	case <-results:
		t.Fatal("two make one layer")
	case <-time.After(20 * time.Millisecond):
	}
	if err := first.Discard(); err != nil {
		t.Fatal(err)
	}
	if a, b := <-results, <-results; a == nil || b != nil { // one takes over, and the other finds what it made
		t.Error(a, b)
	}
	if !s.HasLayer("map", layer) || len(files(t, s, "layers", "map")) != 1 {
		t.Error(files(t, s, "layers", "map"))
	}

	killed := Layer{DiffID: "sha256:" + strings.Repeat("2", 64)}
	left := s.path("layers", "map", "new-"+strings.Repeat("2", 64))
	if err := os.MkdirAll(filepath.Join(left, "half"), 0o700); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	if _, err := s.NewLayer("map", killed, func(string) error { return refused }); err != refused {
		t.Error(err)
	}
	again, err := s.NewLayer("map", killed, os.RemoveAll)
	if err != nil || again == nil {
		t.Fatal(again, err)
	}
	if entries, err := os.ReadDir(again.Dir); len(entries) > 0 || err != nil {
		t.Error("what a killed one left is there: ", entries, err)
	}
	if err := again.Commit(); err != nil {
		t.Error(err)
	}
}
