package container

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/step"
	"github.com/podsh/podsh/sandbox/store"
	"github.com/podsh/podsh/sandbox/tarcopy"
)

// Files are copied by podsh itself, started anew as podsh@copy with the root of a pod or container as its own: it
// writes or reads a tar. So no program need be there, no link leads out, and owners mean what they mean inside.

// CopyName is the argv[0] of who copies; what it is to do stands behind: stat PATH, pack PATH BASE, place PATH BASE
// IS_FOLDER CONTENTS OWNERS, or extract PATH OWNERS.
const CopyName = "podsh@copy"

// CopyMain is the main function of who copies. Its root is the folder, before it starts.
func CopyMain(args []string) int {
	if err := copyInside(args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func copyInside(args []string) error {
	root, err := os.OpenRoot("/")
	if err != nil {
		return err
	}
	defer root.Close()
	switch {
	case len(args) == 2 && args[0] == "stat":
		return tellKind(root, args[1])
	case len(args) == 3 && args[0] == "pack":
		packed, err := tarcopy.Pack(root, args[1], args[2], os.Stdout)
		if err == nil {
			fmt.Fprint(os.Stderr, leftOut(packed))
		}
		return err
	case len(args) == 6 && args[0] == "place":
		isFolder, contents := args[3] == "true", args[4] == "true"
		target, err := tarcopy.Destination(root, args[1], isFolder, args[2], contents)
		if err != nil {
			return err
		}
		defer target.Close()
		return target.Place(os.Stdin, tarcopy.Options{Owners: args[5] == "true"})
	case len(args) == 3 && args[0] == "extract":
		err := tarcopy.Place(root, args[1], "", os.Stdin, tarcopy.Options{Owners: args[2] == "true"})
		if err == nil {
			_, err = io.Copy(io.Discard, os.Stdin) // tar(1) fills up its last block, and does not like to be cut off
		}
		return err
	}
	return fmt.Errorf("%s can't do %q", CopyName, args)
}

// leftOut is a warning of what was not copied, if there is such.
func leftOut(packed tarcopy.Packed) string {
	if len(packed.Left) == 0 {
		return ""
	}
	return fmt.Sprintf("%d left out that are no files, such as %q", len(packed.Left), packed.Left[0])
}

// tellKind says whether a path is a folder.
func tellKind(root *os.Root, name string) error {
	info, err := tarcopy.Stat(root, name)
	if err != nil {
		return err
	}
	_, err = fmt.Println(info.IsDir())
	return err
}

// startCopier starts podsh@copy in the root of the pod, or of the container that is seen as one.
func startCopier(f *Files, stdin, stdout, stderr *os.File, args ...string) (*nsenter.Executor, error) {
	p := f.pod
	pidfd, err := store.Open(p)
	if err != nil {
		return nil, err
	}
	defer pidfd.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	exe, err := perform.OpenExe(p, pidfd)
	if err != nil {
		return nil, err
	}
	defer exe.Close()
	mounts := f.mounts
	if mounts == nil {
		mounts = pidfd
	}
	files := []*os.File{pidfd, mounts, exe, stdin, stdout, stderr}
	for i, file := range files {
		if file == nil {
			files[i] = null
		}
	}
	executor, err := nsenter.Start("/proc/self/exe", null, files, &syscall.SysProcAttr{Setsid: true})
	if err != nil {
		return nil, err
	}
	plan, then := planCopy(p, args)
	if err := perform.LeadAway(executor, plan, then); err != nil {
		executor.Kill()
		return nil, perform.ExplainFailure(plan, err)
	}
	return executor, nil
}

// planCopy lists what is done to leave podsh@copy alone with a root. As with the pod's shared memory, that is a mount of
// another mount namespace: it is fetched from there.
func planCopy(p *pod.Pod, args []string) (planned step.Plan, then int) {
	const podFD, mountsFD, exeFD = nsenter.EnterFD, nsenter.EnterFD + 1, nsenter.EnterFD + 2
	b := &plan.Builder{}
	b.Explain("go to the files, with mounts of one's own", "setns(2)", "")
	b.Call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	for fd := range 3 {
		b.Call(unix.SYS_DUP3, exeFD+1+fd, fd, 0)
	}
	b.Call(unix.SYS_CLOSE_RANGE, exeFD+1, plan.AllFDs, 0)
	stage := b.Call(unix.SYS_OPENAT, unix.AT_FDCWD, store.StoreOf(p).Below("mnt"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	b.Call(unix.SYS_CLOSE, stage) // it is there
	if p.Namespaces["user"].Kind != "host" {
		b.Call(unix.SYS_SETNS, podFD, unix.CLONE_NEWUSER)
		b.NotDumpable()
	}
	b.Call(nsenter.Clone, unix.CLONE_NEWNS|unix.CLONE_NEWNET|unix.CLONE_NEWIPC)
	b.Call(unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_PRIVATE, 0)
	own := b.Call(unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC)
	b.Call(unix.SYS_SETNS, mountsFD, unix.CLONE_NEWNS)
	tree := b.Call(unix.SYS_OPEN_TREE, unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	b.Call(unix.SYS_SETNS, own, unix.CLONE_NEWNS)
	at := b.Call(unix.SYS_OPENAT, unix.AT_FDCWD, store.StoreOf(p).Below("mnt"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	b.Call(unix.SYS_MOVE_MOUNT, tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	b.Call(unix.SYS_FCHDIR, tree)
	b.Explain("be root there, and nowhere else", "capabilities(7)", "")
	b.BeRoot(p)
	b.CloseOnExec(exeFD, nsenter.PlanFD)
	b.Explain("become podsh, which does the rest before it starts", "execveat(2)", "")
	b.Call(unix.SYS_EXECVEAT, exeFD, "", nsenter.Strings(append([]string{CopyName}, args...)), nsenter.Strings(nil), unix.AT_EMPTY_PATH)
	then = b.Calls
	keep := perform.ToWrite
	if args[0] == "stat" || args[0] == "pack" {
		keep = perform.ToRead
	}
	b.BeAlone(perform.LastCap(), perform.Ours(p, keep))
	b.Call(unix.SYS_CLOSE, nsenter.PlanFD)
	return b.Steps, then
}

// runCopy runs podsh@copy to its end; a while after that of ctx, if need be. What it says of a copy that went well is a
// warning.
func runCopy(ctx context.Context, f *Files, stdin, stdout *os.File, args ...string) (warning string, err error) {
	read, write, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer read.Close()
	executor, err := startCopier(f, stdin, stdout, write, args...)
	write.Close()
	if err != nil {
		return "", err
	}
	over := make(chan struct{})
	go func() { // it ends by itself, when it finds a pipe closed, but where its files let it wait
		select {
		case <-over:
		case <-later(ctx, proc.UntilKill):
			_ = unix.PidfdSendSignal(int(executor.PIDFD.Fd()), unix.SIGKILL, nil, 0) // gone already is as good
		}
	}()
	said, _ := io.ReadAll(io.LimitReader(read, 1<<16)) // what can't be read was not said
	text := strings.TrimSpace(string(said))
	status := proc.WaitFor(executor.PID)
	close(over)
	executor.Close()
	switch {
	case status.ExitStatus() == 0:
		return text, nil
	case text == "":
		text = "the copy ended without a word"
	}
	hint := "`podsh join " + f.pod.Title() + " -- ls -l /` shows what is there"
	switch {
	case strings.Contains(text, tarcopy.ErrNoTar.Error()):
		hint = "tar c FILES | podsh cp - " + f.pod.Title() + ":FOLDER; one that is compressed goes through gunzip"
	case f.mounts != nil:
		hint = "it has ended; what was in memory (--tmpfs) ended with it"
	}
	return "", fault.New(nil, []string{hint}, "%s: %s", f.pod.Title(), proc.Printable(text))
}
