package container

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/disk"
	"github.com/podsh/podsh/sandbox/doctor"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/machine"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/step"
	"github.com/podsh/podsh/sandbox/store"
)

// Stdio is what a container's command reads and writes, and who learns of its terminal.
type Stdio struct {
	In, Out, Err *os.File
	Terminal     *os.File // socket on which the terminal's other end is passed out; nil: there is none
	Rows, Cols   uint16
	Term         string
	Sockets      []*os.File // that it is given as well
}

// ProposeContainer plans what start would do, for those who want to see it.
func ProposeContainer(c *pod.Container) (step.Plan, error) {
	pidfd, err := store.Open(c.In)
	if err != nil {
		return nil, err
	}
	defer pidfd.Close()
	etc, err := etc(c.In, pidfd)
	if err != nil {
		return nil, err
	}
	return PlanOf(c, etc)
}

// PlanOf is the plan of a container that is only to be shown.
func PlanOf(c *pod.Container, etc []plan.EtcFile) (step.Plan, error) {
	f, member, err := facts(c, etc, &Stdio{})
	if err != nil {
		return nil, err
	}
	return plan.Container(f, member), nil
}

// facts reads what must be known to start the container. etc are the files that podsh has written for the pod.
func facts(c *pod.Container, etc []plan.EtcFile, stdio *Stdio) (f *plan.Facts, member *plan.ContainerFacts, err error) {
	view := View(c)
	f = &plan.Facts{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Kernel: machine.KernelVersion(), Store: store.StoreOf(c.In).Path}
	f.Root = f.UID == 0 && perform.HasCapability(capability.CAP_SYS_ADMIN)
	if f.LastCap, err = capability.LastCap(); err != nil {
		return nil, nil, fmt.Errorf("last capability: %w", err)
	}
	if f.OwnGIDs, err = machine.OwnGIDs(); err != nil {
		return nil, nil, err
	}
	f.Keys = files.Exists("/proc/sys/kernel/keys")
	member = &plan.ContainerFacts{Container: c, View: view, Etc: plan.WithHostname(etc, view.Hostname), Rows: stdio.Rows, Columns: stdio.Cols, Term: stdio.Term}
	if !c.Spec.TTY {
		member.Nulls = nullStreams(stdio.In, stdio.Out, stdio.Err)
	}
	member.Owners = disk.VolumeOwners(c)
	if err = readRoot(c, f, view); err != nil {
		return nil, nil, err
	}
	member.Missing = disk.MissingVolumes(c)
	if member.Who, err = identifyContainer(c, f, view); err != nil {
		return nil, nil, err
	}
	member.Join = plan.JoinFacts{Who: member.Who, Last: f.LastCap, Held: machine.JoinerHolds(view), Keys: f.Keys}
	if err = machine.CheckHeld(view.Spec.CapAdd, member.Join.Held); err != nil {
		return nil, nil, err
	}
	for sig := unix.SIGHUP; sig <= unix.SIGTTOU; sig++ {
		if signal.Ignored(sig) {
			member.Ignored = append(member.Ignored, sig)
		}
	}
	return f, member, nil
}

// readRoot looks at what the container's root is made of.
func readRoot(c *pod.Container, f *plan.Facts, view *pod.Pod) error {
	spec := view.Spec
	spec.Volumes = c.Spec.Volumes
	if err := machine.ReadRootFacts(f, &spec, false); err != nil {
		return err
	}
	for range c.Spec.PodVolumes { // behind those, and folders of podsh's own making
		f.Volumes = append(f.Volumes, true)
	}
	if folders := disk.Folders(c); c.Root.Kind == "layers" && len(folders) > len(c.Root.Layers) {
		machine.ReadLayers(f, folders) // once more, with what the container has written itself
	}
	var err error
	if f.Dir.Root, err = disk.ImageRoot(c.In, c.Root.Layers); err != nil {
		return err
	}
	return plan.CheckRoot(view, f)
}

// CheckRoot refuses, before an image is fetched for it, a container whose root this kernel can't make. pod is where it
// will be; nil for a new one.
func CheckRoot(spec *spec.ContainerSpec, pod *pod.Pod) error {
	kernel := machine.KernelVersion()
	if kernel.AtLeast(5, 11) { // overlays for everyone
		return nil
	}
	m := doctor.ThisMachine()
	return checkContainerRoot(spec, kernel, m.Root() && m.Initial() && (pod == nil || pod.Namespaces["user"].Kind == "host"))
}

func checkContainerRoot(c *spec.ContainerSpec, kernel plan.Version, root bool) error {
	if root || kernel.AtLeast(5, 11) || c.Rootfs.Kind == "dir" && c.Rootfs.Mode != "overlay" {
		return nil
	}
	return fault.New(nil, []string{"what works is a folder with a root file system in it, as it is: podsh run --rootfs DIR:ro, or :rw", "as root images work, too"},
		"no container from %s here: its layers take an overlay, and Linux %v lets only root mount those, 5.11 everyone", cmp.Or(c.Image, c.Rootfs.Dir), kernel)
}

// checkFolder refuses a folder that is no root file system for a container.
func checkFolder(source rootfs.Source) error {
	if source.Kind != "dir" {
		return nil
	}
	info, err := os.Stat(source.Dir)
	if err == nil && !info.IsDir() {
		err = unix.ENOTDIR
	}
	if err != nil {
		return fault.WithHint(fmt.Errorf("rootfs: %w", err), "--rootfs takes a folder with a root file system in it, or a tar of one")
	}
	return nil
}

// identifyContainer looks the container's user up in its own files.
func identifyContainer(c *pod.Container, f *plan.Facts, view *pod.Pod) (pod.Identity, error) {
	who, err := plan.LookUp(c.User, view.UID, view.GID, f.Passwd, f.Group)
	if err != nil {
		err = fault.New(fault.ErrInvalid, []string{"--user UID[:GID], or a name from the image's own /etc/passwd"}, "no %s in %s", plan.Whom(c.User), WhereOf(c))
		return who, withoutFolders(err, func(name string) (*os.File, error) { return openPath(c, name) })
	}
	if unmapped := view.Unmapped(who); len(unmapped) > 0 {
		hint := "--user root"
		if c.In.OneID {
			hint += "; more ids take ranges in /etc/subuid and /etc/subgid: `podsh doctor` says how"
		}
		return who, fault.New(nil, []string{hint}, "user %q of %s has ids that the pod has not: %s", c.User, WhereOf(c), strings.Join(unmapped, " and "))
	}
	view.Confine(&who)
	return who, nil
}

// WhereOf says what a container is made of.
func WhereOf(c *pod.Container) string {
	if c.Image.Name == "" {
		return c.Spec.Rootfs.Dir
	}
	return fmt.Sprintf("image %q", c.Image.Name)
}

// StartInPod starts the container's command as a child of this process. running is called when all is there but the command:
// what it was given is returned with an error as well, for the caller to close. The calling goroutine must be locked to
// a thread that lives as long as this process: the command ends with it.
func StartInPod(c *pod.Container, stdio *Stdio, running func(*Started) error) (s *Started, err error) {
	b, err := build(c, stdio)
	if err != nil {
		return nil, err
	}
	if s, err = newStarted(b.executor); err == nil {
		err = running(s)
	}
	if err == nil {
		if err = b.executor.Send(b.plan[b.held:].Calls(), b.held); err == nil {
			err = b.executor.Became()
		}
	}
	if err != nil {
		b.undo()
		return s, explain(c, b.plan, err)
	}
	return s, b.executor.Close()
}

// built is a container of which all is there but the command.
type built struct {
	executor *nsenter.Executor
	volumes  []string // of the pod's, that were made for it
	plan     step.Plan
	held     int // so many steps of it are done
}

func (b *built) undo() {
	b.executor.Kill()
	disk.RemoveVolumes(b.volumes)
}

// build starts what is to be the container's command, and has it do all that comes before that. It ends with the thread
// that the calling goroutine is locked to.
func build(c *pod.Container, stdio *Stdio) (b *built, err error) {
	pidfd, err := store.Open(c.In)
	if err != nil {
		return nil, err
	}
	defer pidfd.Close()
	executor, err := executor(c, pidfd, stdio) // it needs a while to start: the facts are read meanwhile
	if err != nil {
		return nil, err
	}
	var f *plan.Facts
	var member *plan.ContainerFacts
	etc, err := etc(c.In, pidfd)
	if err == nil {
		f, member, err = facts(c, etc, stdio)
	}
	if err != nil {
		executor.Kill()
		return nil, err
	}
	b = &built{executor: executor, volumes: disk.MakeVolumes(c)}
	maps.DeleteFunc(member.Owners, func(dir string, _ plan.Owner) bool { return !slices.Contains(b.volumes, dir) })
	b.plan = plan.Container(f, member)
	b.held = perform.Chunk(b.plan)
	if err := perform.SendPlan(b.plan[:b.held], executor); err != nil {
		b.undo()
		return nil, explain(c, b.plan, err)
	}
	return b, nil
}

// executor starts podsh, or the pod's own unreachable copy of it, as what will be the command.
func executor(c *pod.Container, pidfd *os.File, stdio *Stdio) (*nsenter.Executor, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	exe, err := perform.OpenExe(c.In, pidfd)
	if err != nil {
		return nil, err
	}
	defer exe.Close()
	extra := []*os.File{pidfd, stdio.In, stdio.Out, stdio.Err, stdio.Terminal}
	for i, file := range extra {
		if file == nil {
			extra[i] = null
		}
	}
	extra = append(extra, stdio.Sockets...)
	return nsenter.StartFile(exe, null, extra, &syscall.SysProcAttr{Setsid: true})
}

// explain says what a call that failed was for, where only a container has that cause.
func explain(c *pod.Container, steps step.Plan, err error) error {
	var failed *nsenter.CallError
	if !errors.As(err, &failed) {
		return perform.ExplainFailure(steps, err)
	}
	if gone := store.Lives(c.In); gone != nil { // whatever the call says
		return gone
	}
	failing, why, _ := steps.At(failed.Place)
	switch errno := failed.Errno; {
	case failing.Call.Nr == nsenter.Exec:
		return execFailed(c, errno)
	case failing.Call.Nr == unix.SYS_SETNS && errno == unix.ESRCH, failing.Call.Nr == nsenter.Clone && errno == unix.ENOMEM:
		// It goes just now: setns(2) of a zombie, clone(2) where the first process of a pid namespace is one.
		return fault.New(fault.ErrExited, []string{"podsh rm " + c.In.Title()}, "pod %q has ended", c.In.Title())
	case why.Role == step.Folder:
		return plan.FolderFailed(c.Workdir, errno, "--workdir names another folder")
	case (errno == unix.EACCES || errno == unix.EOVERFLOW) && (failing.Call.Nr == unix.SYS_MKNODAT || failing.Call.Nr == unix.SYS_MKDIRAT || failing.Call.Nr == unix.SYS_UNLINKAT):
		return fault.WithHint(perform.ExplainFailure(steps, err), "does %s belong to somebody else? The pod has numbers for yourself and for your ranges of ids", WhereOf(c))
	case failing.Call.Nr == unix.SYS_PRLIMIT64 && errno == unix.EPERM:
		return fault.New(nil, []string{"`ulimit -aH` shows what you may give away"}, "--ulimit: more than your own limit")
	}
	if why := Mismatched(c.Spec.Volumes, disk.Folders(c)); why != nil {
		return why
	}
	return perform.HintAtMounts(perform.ExplainFailure(steps, err), c.Spec.Rootfs)
}
