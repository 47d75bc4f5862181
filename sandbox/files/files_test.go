package files

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReadIn: no link of the folder's leads out of it, and nothing but a file is read.
func TestReadIn(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	for _, err := range []error{
		os.WriteFile(outside, []byte("outside"), 0o600),
		os.WriteFile(filepath.Join(dir, "file"), []byte("inside"), 0o600),
		os.Symlink("/file", filepath.Join(dir, "absolute")),
		os.Symlink(outside, filepath.Join(dir, "leads-out")),
		os.Symlink("/proc/self/cwd/files_test.go", filepath.Join(dir, "magic")),
		unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, want := range map[string]string{"file": "inside", "/absolute": "inside", "../../file": "inside", "leads-out": "", "magic": "", "fifo": "", "none": "", ".": ""} {
		if got := ReadIn(int(root.Fd()), name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestWriteWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := WriteJSON(path, []int{1, 2}); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); string(text) != "[1,2]" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if err := WriteText(filepath.Join(path, "below"), "x"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("%v, want ENOTDIR", err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
}

func TestLockFolder(t *testing.T) {
	dir := t.TempDir()
	first, err := LockFolder(dir, unix.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := LockFolder(dir, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("%v, %v: locked twice", second, err)
	}
	first.Close()
	if second, err := LockFolder(dir, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Error(err)
	} else {
		second.Close()
	}
}
