package helper

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// confined runs the test once more in a process of its own, which can be confined, and says whether this is it.
func confined(t *testing.T) bool {
	t.Helper()
	if os.Getenv("PODSH_TEST_CONFINED") != "" {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "PODSH_TEST_CONFINED="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

func TestConfined(t *testing.T) {
	if !confined(t) {
		return
	}
	dir := os.Getenv("PODSH_TEST_CONFINED")
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := make(chan func() error)
	done := make(chan error)
	go func() { // a thread that is there before
		runtime.LockOSThread()
		for do := range other {
			done <- do()
		}
	}()
	other <- func() error { return nil }
	<-done
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := confine(); err != nil {
		t.Fatal(err)
	}
	for what, do := range map[string]func() error{
		"start a program": func() error { return exec.Command("/bin/true").Run() },
		"write a file":    func() error { return os.WriteFile(file, nil, 0o600) },
		"make a file":     func() error { return os.WriteFile(file+"2", nil, 0o600) },
		"remove a file":   func() error { return os.Remove(file) },
		"make a folder":   func() error { return os.Mkdir(file+"3", 0o700) },
		"unshare":         func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"mount":           func() error { return unix.Mount("none", dir, "tmpfs", 0, "") },
		"a UNIX socket":   func() error { return socket(unix.AF_UNIX) },
		"a packet socket": func() error { return socket(unix.AF_PACKET) },
		"a pair":          func() error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err },
		"change a mode":   func() error { return os.Chmod(file, 0o644) },
		"rename":          func() error { return unix.Rename(file, file+"4") },
		"open(2)":         func() error { return legacyOpen(file) },
		"ptrace":          func() error { return unix.PtraceAttach(os.Getppid()) },
	} {
		if err := do(); !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: %v", what, err)
		}
		other <- do
		if err := <-done; !errors.Is(err, unix.EPERM) {
			t.Errorf("%s, on another thread: %v", what, err)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "text" {
		t.Errorf("what is needed is not refused: %q, %v", text, err)
	}
	for _, family := range families {
		if err := socket(int(family)); err != nil {
			t.Errorf("a socket of family %d: %v", family, err)
		}
	}
}

func socket(family int) error {
	kind := unix.SOCK_DGRAM
	if family == unix.AF_PACKET {
		kind = unix.SOCK_RAW
	}
	fd, err := unix.Socket(family, kind, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// legacyOpen opens a file for writing by the first of the legacy calls, open(2) where there is that.
func legacyOpen(file string) error {
	if runtime.GOARCH != "amd64" {
		return unix.EPERM
	}
	name, err := unix.BytePtrFromString(file)
	if err != nil {
		return err
	}
	_, _, errno := unix.Syscall(uintptr(legacy[0]), uintptr(unsafe.Pointer(name)), unix.O_WRONLY|unix.O_CREAT, 0o600)
	return errno
}
