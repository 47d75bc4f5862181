package disk

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/image/program"
	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/doctor"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/step"
)

// unpack runs the program of images with the folder as its root: whatever is in the blob, there is nothing else that it
// could reach. It is root of a user namespace like the pod's, so that the files belong to whom they should.
func unpack(p *pod.Pod, blob *os.File, dir string, layer *image.Layer, tell func(image.Event)) error {
	limits := image.Limits{Bytes: mostLayerBytes, Entries: mostLayerEntries}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil {
		limits.Bytes = min(limits.Bytes, max(1, int64(fs.Bavail)*fs.Bsize-leastFree))
	}
	file, done, err := imageProgram.open()
	if err != nil {
		return err
	}
	defer done()
	ours, theirs, err := proc.Stream()
	if err != nil {
		return err
	}
	defer ours.Close()
	executor, err := unpacker(p, blob, theirs, file)
	theirs.Close()
	if err != nil {
		return err
	}
	defer executor.Kill()
	plan, then := planUnpack(p, dir)
	if err := perform.LeadAway(executor, plan, then); err != nil {
		return perform.ExplainFailure(plan, err)
	}
	_, err = converse(ours, &image.Request{Do: image.Unpack, Layer: layer, Limits: limits, Squash: p.OneID}, tell)
	return err
}

// sharedProgram is the program of images, open while somebody unpacks: to open it takes longer than most layers do.
type sharedProgram struct {
	mutex sync.Mutex
	file  *os.File
	users int
}

var imageProgram sharedProgram

func (s *sharedProgram) open() (file *os.File, done func(), err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.users == 0 {
		if s.file, err = perform.InMemory(program.Open()); err != nil {
			return nil, nil, err
		}
	}
	s.users++
	return s.file, s.close, nil
}

func (s *sharedProgram) close() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.users--; s.users == 0 {
		s.file.Close()
	}
}

// Descriptors that the executor of an unpacker finds open.
const (
	unpackBlobFD    = nsenter.EnterFD
	unpackTalkFD    = nsenter.EnterFD + 1
	unpackProgramFD = nsenter.EnterFD + 2
)

// unpacker starts an executor in a user namespace like the pod's.
func unpacker(p *pod.Pod, blob, talk, file *os.File) (*nsenter.Executor, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	attr := &syscall.SysProcAttr{Setsid: true}
	if p.MapName() == "host" {
		return nsenter.Start("/proc/self/exe", null, []*os.File{blob, talk, file}, attr)
	}
	attr.Cloneflags = unix.CLONE_NEWUSER
	for c := capability.Cap(0); c <= perform.LastCap(); c++ {
		attr.AmbientCaps = append(attr.AmbientCaps, uintptr(c)) // they last through the execs, capabilities(7)
	}
	executor, err := nsenter.Start("/proc/self/exe", null, []*os.File{blob, talk, file}, attr)
	if errno, ok := doctor.Unwrapped(err).(syscall.Errno); ok {
		return nil, fault.WithHints(fmt.Errorf("make a user namespace to unpack in: %w", errno), doctor.HintsFor("clone", errno))
	}
	if err != nil {
		return nil, err
	}
	if err := perform.WriteMaps(p, executor.PID, !(os.Geteuid() == 0 && perform.HasCapability(capability.CAP_SYS_ADMIN))); err != nil {
		executor.Kill()
		return nil, err
	}
	return executor, nil
}

// planUnpack lists what is done to leave the program of images alone with a folder.
func planUnpack(p *pod.Pod, dir string) (planned step.Plan, then int) {
	b := &plan.Builder{}
	b.Explain("have no network and no other processes, and mounts of its own", "namespaces(7)", "")
	b.Call(unix.SYS_CLOSE_RANGE, unpackProgramFD+1, plan.AllFDs, 0)
	b.Call(unix.SYS_DUP3, unpackBlobFD, 0, 0)
	b.Call(nsenter.Clone, unix.CLONE_NEWNS|unix.CLONE_NEWNET|unix.CLONE_NEWIPC|unix.CLONE_NEWPID)
	b.Call(unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_PRIVATE, 0)
	b.Call(unix.SYS_MOUNT, dir, dir, 0, unix.MS_BIND, 0)
	b.Call(unix.SYS_CHDIR, dir) // as ourselves: the way to it may be closed to the pod's root
	b.Explain("be root, where the layer's files belong to whom they should", "user_namespaces(7)", "")
	b.BeRoot(p)
	b.Explain("become the program that unpacks, which does the rest before it starts", "execveat(2)", "")
	b.CloseOnExec(unpackProgramFD, nsenter.PlanFD, unpackTalkFD)
	b.Call(unix.SYS_EXECVEAT, unpackProgramFD, "", nsenter.Strings([]string{image.UnpackName}), nsenter.Strings(nil), unix.AT_EMPTY_PATH)
	then = b.Calls
	keep := perform.ToUnpack
	if p.MapName() == "host" {
		keep = append(slices.Clip(keep), capability.CAP_SYS_ADMIN) // overlayfs knows opaque folders of root's by trusted.*, xattr(7)
	}
	b.BeAlone(perform.LastCap(), perform.Ours(p, keep))
	b.Call(unix.SYS_DUP3, unpackTalkFD, image.RequestFD, 0) // in place of the executor's own: from here on it can't say what fails
	b.Call(unix.SYS_CLOSE, unpackTalkFD)
	return b.Steps, then
}
