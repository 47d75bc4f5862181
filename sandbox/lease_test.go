package sandbox

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/files"
)

// TestLeasesAreNotWaitedFor: whoever owns a file in a root can have a lease on it, and an open(2) that waits then waits for
// 45 seconds, proc_sys_fs(5), each time.
func TestLeasesAreNotWaitedFor(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"passwd", "program"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/none\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		leased, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer leased.Close()
		if _, err := unix.FcntlInt(leased.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
			t.Skipf("no leases here: %v", err)
		}
	}
	began := time.Now()
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	if text := files.ReadIn(root, "/passwd"); text != "" {
		t.Errorf("got %q", text)
	}
	a := &attempt{argv: []string{"/program"}, where: "here", open: func(name string) (*os.File, error) {
		fd, err := files.OpenIn(root, name, unix.O_PATH)
		return asFile(fd, name, err)
	}}
	if err := a.failed(unix.EACCES); err == nil {
		t.Error("no error")
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}
