package sandbox

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/disk"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/store"
)

// makeUpper makes the folder on disk for the pod's writes, where it needs one. A link in it says where the pod
// is described; until that is so, the folder is locked. So what has lost its pod can be told: create was
// killed, or the machine was, and the store lay in memory.
func (run *performance) makeUpper() (err error) {
	pod := run.Pod
	if pod.Upper == "" {
		return nil
	}
	defer func() {
		if err != nil {
			err = fault.WithHint(fmt.Errorf("folder for what the pod writes: %w", err), "set XDG_DATA_HOME to a folder on a disk, of your own")
		}
	}()
	all := filepath.Dir(pod.Upper)
	if err := store.CheckWay(all); err != nil {
		return err
	}
	if err := os.MkdirAll(all, 0o700); err != nil {
		return err
	}
	lock, err := files.LockFolder(all, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer lock.Close()
	disk.SweepUppers(pod, all)
	run.undo = append(run.undo, func() { _ = disk.RemoveUpper(pod) }) // rm tries again, and says why
	if err := os.Mkdir(pod.Upper, 0o700); err != nil {
		return err
	}
	if run.upper, err = files.LockFolder(pod.Upper, unix.LOCK_EX); err != nil {
		return err
	}
	return run.store.ClaimDisk(pod.Upper, run.store.Below("pods", pod.ID), proc.ID{})
}
