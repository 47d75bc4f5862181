package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/pod"
)

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
	if err := removeUpper((&pod.Pod{Upper: dir})); err != nil {
		t.Errorf("%.300s", err.Error())
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there: %v", err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
}
