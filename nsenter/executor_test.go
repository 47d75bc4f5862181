package nsenter

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestClonedOutOfOrder: a clone tells of one of its own, by a number of another pid namespace, before its parent tells of
// the clone.
func TestClonedOutOfOrder(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "plan"), os.NewFile(uintptr(fds[1]), "plan")
	defer theirs.Close()
	e := &Executor{PID: os.Getpid(), sock: ours}
	defer e.Close()
	if err := e.TellWho(); err != nil {
		t.Fatal(err)
	}
	const cloned = ^uint32(1) // PODSH_CLONED, -2
	clone := exec.Command("sh", "-c", `printf '\376\377\377\377\377\377\377\177' >&3; echo; read line`)
	clone.ExtraFiles = []*os.File{theirs}
	stdin, err := clone.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := clone.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := clone.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil { // it has told
		t.Fatal(err)
	}
	if _, err := theirs.Write(native.AppendUint32(native.AppendUint32(nil, cloned), uint32(clone.Process.Pid))); err != nil {
		t.Fatal(err)
	}
	if err := e.Cloned(); err != nil || e.PID != clone.Process.Pid {
		t.Errorf("pid %d, not %d: %v", e.PID, clone.Process.Pid, err)
	}
	stdin.Close()
	_ = clone.Wait() // read found no line
}
