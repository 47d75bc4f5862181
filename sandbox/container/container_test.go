package container

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/spec"
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

// TestImagesOnOldKernels: a container that can't be made is refused before anything is fetched for it, and what works
// instead is said.
func TestImagesOnOldKernels(t *testing.T) {
	dir := func(mode string) rootfs.Source { return rootfs.Source{Kind: "dir", Dir: "/srv", Mode: mode} }
	for _, test := range []struct {
		spec   spec.ContainerSpec
		kernel plan.Version
		root   bool
		ok     bool
	}{
		{spec.ContainerSpec{Image: "nginx"}, plan.Version{Major: 5, Minor: 10}, false, false},
		{spec.ContainerSpec{Image: "nginx"}, plan.Version{Major: 5, Minor: 10}, true, true},
		{spec.ContainerSpec{Image: "nginx"}, plan.Version{Major: 5, Minor: 11}, false, true},
		{spec.ContainerSpec{Rootfs: dir("overlay")}, plan.Version{Major: 5, Minor: 10}, false, false},
		{spec.ContainerSpec{Rootfs: dir("ro")}, plan.Version{Major: 5, Minor: 10}, false, true},
		{spec.ContainerSpec{Rootfs: dir("rw")}, plan.Version{Major: 5, Minor: 10}, false, true},
	} {
		err := checkContainerRoot(&test.spec, test.kernel, test.root)
		if test.ok != (err == nil) || err != nil && !strings.Contains(fault.Hints(err)[0], "podsh run --rootfs DIR:ro") {
			t.Errorf("%+v: %v %q", test, err, fault.Hints(err))
		}
	}
}

// TestDrainLosesNothing: what a command has written when it ends is passed on, whenever the deadline comes that wakes who
// reads it, and if somebody who got away has the pipe.
func TestDrainLosesNothing(t *testing.T) {
	for range 50 {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(write, "the last words"); err != nil {
			t.Fatal(err)
		}
		var ended, over atomic.Bool
		ended.Store(true)
		c := &copied{name: "standard output", file: theirs, pipe: read}
		waking, woken := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(woken)
			_ = read.SetReadDeadline(time.Now())
			close(waking)
			for !over.Load() {
				_ = read.SetReadDeadline(time.Now()) // Drain; it may be closed
			}
		}()
		<-waking
		c.out(&ended)
		over.Store(true)
		<-woken
		theirs.Close()
		got, err := io.ReadAll(ours)
		if err != nil || c.err != nil || string(got) != "the last words" {
			t.Fatalf("%q, %v, %v", got, err, c.err)
		}
		ours.Close()
		write.Close()
	}
}
