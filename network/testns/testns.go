// Package testns runs tests in namespaces of their own, where they may do to a network whatever they like.
package testns

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// marker is the environment variable that tells a test that it is inside.
const marker = "PODSH_TEST_INSIDE"

// Inside runs the calling test once more in new user, network and mount namespaces, as their root, and
// reports how that ended; inside, it returns true. The network has nothing but a loopback interface, which is
// down. Root has no ids but its own there.
//
//	func TestX(t *testing.T) {
//		if !testns.Inside(t) {
//			return
//		}
//		… // in the new namespaces
func Inside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(marker) == t.Name() {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), marker+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	runtime.LockOSThread() // Pdeathsig is the thread's
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil && cmd.ProcessState == nil && os.Getenv("PODSH_MUST_WORK") != "1":
		t.Skipf("no namespaces here: %v", err)
	case err != nil:
		t.Fatalf("inside: %v\n%s", err, out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Fatalf("it did not run inside:\n%s", out)
	}
	return false
}

// Run runs a program of the machine, such as ip(8), in the calling thread's namespaces.
func Run(t testing.TB, command ...string) string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return string(out)
}

// NewNetwork makes another network namespace, for what stands for another host, and returns its file. The
// calling thread stays where it is. It is gone with the test.
func NewNetwork(t testing.TB) *os.File {
	t.Helper()
	made := make(chan *os.File)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine, in its new namespace
		defer close(made)
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
			return
		}
		made <- file
	}()
	file := <-made
	if file == nil {
		t.FailNow()
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// In runs do on a thread that is in the network namespace behind file: what it opens there stays there. Where do ends by
// t.Fatal, which ends no more than the goroutine that it is called on, so does the test.
func In(t testing.TB, file *os.File, do func()) {
	t.Helper()
	done, whole := make(chan struct{}), false
	var err error
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked
		if err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err == nil {
			do()
			whole = true
		}
	}()
	<-done
	switch {
	case err != nil:
		t.Fatalf("setns: %v", err)
	case !whole:
		t.FailNow()
	}
}
