package nsenter

import (
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestJoinerBelievesNoForeignPID: the clone was seized, and tells the pid of somebody else before its parent tells its own.
// What is sent to the joiner goes to the command all the same.
func TestJoinerBelievesNoForeignPID(t *testing.T) {
	runtime.LockOSThread() // the joiner ends with this thread
	defer runtime.UnlockOSThread()
	other := exec.Command("sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	exe, null := opened(t, "/proc/self/exe", os.O_RDONLY), opened(t, os.DevNull, os.O_RDWR)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	const cloned = ^uint32(1) // PODSH_CLONED, -2
	forged := native.AppendUint32(native.AppendUint32(nil, cloned), uint32(other.Process.Pid))
	joiner := Joiner{Exe: exe, Pod: null, Args: []string{"join"}, Calls: []Call{
		{Nr: unix.SYS_SENDTO, Args: []any{ReportFD, forged, len(forged), unix.MSG_NOSIGNAL, 0, 0}},
		{Nr: Clone, Args: []any{0}},
		{Nr: Exec, Args: []any{Strings([]string{"/bin/sh", "-c", "echo; exec sleep 60"}), Strings(nil), 0}},
	}}
	process, err := joiner.Start([3]*os.File{null, write, null}, nil, &syscall.SysProcAttr{})
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read.Read(make([]byte, 1)); err != nil {
		process.Kill()
		t.Fatalf("the command did not run: %v", err)
	}
	if err := process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	status := make(chan int, 1)
	go func() {
		state, _ := process.Wait()
		status <- state.ExitCode()
	}()
	select {
	case got := <-status:
		if got != 128+int(unix.SIGTERM) {
			t.Errorf("status %d, want %d", got, 128+int(unix.SIGTERM))
		}
	case <-time.After(10 * time.Second):
		process.Kill()
		t.Error("the command did not get the signal")
	}
	if pid, err := syscall.Wait4(other.Process.Pid, nil, syscall.WNOHANG, nil); pid != 0 || err != nil {
		t.Errorf("somebody else's process has ended: %v", err)
	}
}

// TestJoinerAwaitsLastClone: of two clones it is the last that becomes the command, though it may be faster than the word about
// the first. Many at once, for then it is.
func TestJoinerAwaitsLastClone(t *testing.T) {
	exe, null := opened(t, "/proc/self/exe", os.O_RDONLY), opened(t, os.DevNull, os.O_RDWR)
	var callers sync.WaitGroup
	for range 4 * runtime.NumCPU() {
		callers.Go(func() {
			runtime.LockOSThread() // the joiner ends with this thread
			defer runtime.UnlockOSThread()
			for range 100 {
				joiner := Joiner{Exe: exe, Pod: null, Args: []string{"join"}, Calls: []Call{
					{Nr: Clone, Args: []any{0}},
					{Nr: Clone, Args: []any{0}},
					{Nr: Exec, Args: []any{Strings([]string{"/bin/sh", "-c", "exit 7"}), Strings(nil), 0}},
				}}
				process, err := joiner.Start([3]*os.File{null, null, null}, nil, &syscall.SysProcAttr{})
				if err != nil {
					t.Error(err)
					return
				}
				if state, err := process.Wait(); err != nil || state.ExitCode() != 7 {
					t.Errorf("%v, %v; the command's status is 7", state, err)
					return
				}
			}
		})
	}
	callers.Wait()
}

// opened is a file that is open until the end of the test.
func opened(t *testing.T, path string, how int) *os.File {
	t.Helper()
	file, err := os.OpenFile(path, how, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}
