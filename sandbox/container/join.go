package container

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/machine"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/step"
	"github.com/podsh/podsh/sandbox/store"
)

// Joining is a command that could run in a pod, and the plan for it.
type Joining struct {
	Pod  *pod.Pod
	Plan step.Plan

	spec  *spec.JoinSpec
	who   pod.Identity
	pidfd *os.File
}

// ProposeJoin looks at the pod and plans the join; nothing is changed.
func ProposeJoin(pod *pod.Pod, spec *spec.JoinSpec) (*Joining, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	pidfd, err := store.Open(pod)
	if err != nil {
		return nil, err
	}
	last, err := capability.LastCap()
	if err != nil {
		return nil, err
	}
	root, err := machine.OpenRoot(pod, pidfd)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	who, err := identify(pod, root, spec.User)
	if err != nil {
		return nil, err
	}
	if len(spec.Command) == 0 {
		if spec.Command = shell(root, who); spec.Command == nil {
			return nil, noShell(pod)
		}
	}
	f := plan.JoinFacts{Who: who, Last: last, Held: machine.JoinerHolds(pod), Keys: files.Exists("/proc/sys/kernel/keys")}
	if err := machine.CheckHeld(slices.Concat(pod.Spec.CapAdd, spec.CapAdd), f.Held); err != nil {
		return nil, err
	}
	return &Joining{pod, plan.Join(pod, spec, f), spec, who, pidfd}, nil
}

// identify looks a user up as a login would, in the pod's own files.
func identify(p *pod.Pod, root int, text string) (pod.Identity, error) {
	passwd, group := files.ReadIn(root, "/etc/passwd"), files.ReadIn(root, "/etc/group")
	who, err := plan.LookUp(text, p.UID, p.GID, passwd, group)
	if err != nil {
		return who, withoutFolders(err, func(name string) (*os.File, error) {
			fd, err := files.OpenIn(root, name, unix.O_PATH)
			return asFile(fd, name, err)
		})
	}
	if err := p.CheckMapped(who); err != nil {
		return who, err
	}
	p.Confine(&who)
	return who, nil
}

// shell finds an interactive shell in the pod; nil if there is none.
func shell(root int, who pod.Identity) []string {
	for _, candidate := range []string{who.Shell, "/bin/bash", "/bin/sh", "/bin/ash", "/usr/bin/sh"} {
		if candidate == "" {
			continue
		}
		fd, err := files.OpenIn(root, candidate, unix.O_PATH)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o111 != 0 && !strings.HasSuffix(candidate, "/nologin") && !strings.HasSuffix(candidate, "/false") {
			return []string{candidate}
		}
	}
	return nil
}

// noShell says what to do where there is none, as in images that are a program and nothing else.
func noShell(p *pod.Pod) error {
	what, pod := "pod", p
	if p.Around != nil {
		what, pod = "container", p.Around
	}
	return fault.New(fault.ErrNotFound, []string{"podsh run -it --rm --pod " + pod.Title() + " busybox: a container with tools beside it, on the same network and with the same processes",
		"podsh join " + p.Title() + " -- CMD, with a program that it has"}, "%s %q has no shell", what, p.Title())
}

// joiner opens what runs the plan, podsh itself or the pod's own unreachable copy of it, and what is handed to the command.
func (j *Joining) joiner(args []string) (*nsenter.Joiner, error) {
	if err := checkOwnStreams(); err != nil {
		return nil, err
	}
	exe, err := perform.OpenExe(j.Pod, j.pidfd)
	if err != nil {
		return nil, err
	}
	sockets, err := OpenSockets(j.spec.Listen)
	return &nsenter.Joiner{Exe: exe, Pod: j.pidfd, Calls: j.Plan.Calls(), Args: args, Sockets: sockets}, err
}

// Exec runs the command in place of this process, which ends with its status; it returns only on error. args
// are this process's own.
func (j *Joining) Exec(args []string) error {
	joiner, err := j.joiner(args)
	if err != nil {
		return err
	}
	return joiner.Exec()
}

// Start runs the command beside this process, which gets the other end of its terminal. Lock the calling
// goroutine to its thread: the command dies with that.
func (j *Joining) Start(args []string) (joiner *os.Process, terminal *os.File, err error) {
	start, err := j.joiner(args)
	if err != nil {
		return nil, nil, err
	}
	defer control.Close(start.Sockets)
	return start.StartWithTerminal()
}

// Warning says what the command will see that one could take for the pod's; nil if there is no such thing.
func (j *Joining) Warning() error {
	flags, _ := plan.JoinFlags(j.Pod, j.spec.Only)
	pid, mounts := flags&unix.CLONE_NEWPID != 0, flags&unix.CLONE_NEWNS != 0
	both := strings.Join(append(slices.Clone(j.spec.Only), "mnt"), ",")
	switch {
	case pid && !mounts && j.Pod.Namespaces["mnt"].Kind != "host":
		return fault.New(nil, []string{"--only " + both + " takes the pod's"}, "/proc is the host's: ps, top and kill by name see the host's processes, not the pod's")
	case mounts && !pid && j.Pod.Namespaces["pid"].Kind != "host":
		both = strings.Join(append(slices.Clone(j.spec.Only), "pid"), ",")
		return fault.New(nil, []string{"--only " + both}, "/proc is the pod's, and the command is not in there: /proc/self leads nowhere")
	}
	return nil
}

// Streams are what the command gets in place of podsh's own output, where its user could not open that anew; nil: it gets that
// itself. Standard input stays as it is: what the command leaves of it is for whoever reads it next.
func (j *Joining) Streams() (*Streams, error) {
	uid, _ := ids.Translate(j.Pod.IdsOutside(), j.who.UID, true)
	if int(uid) == os.Geteuid() && (uid == 0 || ownFile(os.Stdout) && ownFile(os.Stderr)) {
		return nil, nil
	}
	streams, err := NewStreams(nil, os.Stdout, os.Stderr)
	if err != nil || !streams.Copied() {
		return nil, err
	}
	return streams, nil
}

// StartBeside runs the command beside this process, in a process group of its own: the keyboard's signals are for podsh to
// pass on. Lock the calling goroutine to its thread: the command dies with that.
func (j *Joining) StartBeside(args []string, streams *Streams) (*os.Process, error) {
	joiner, err := j.joiner(args)
	if err != nil {
		return nil, err
	}
	stdio := [3]*os.File{os.Stdin, cmp.Or(streams.Out, os.Stdout), cmp.Or(streams.Err, os.Stderr)} // nil: /dev/null as it is
	defer control.Close(joiner.Sockets)
	return joiner.Start(stdio, nil, &syscall.SysProcAttr{Setpgid: true})
}

// Failed says why a joiner could not carry out its plan: the call at place failed with errno.
func (j *Joining) Failed(place int, errno syscall.Errno) error {
	failing, why, ok := j.Plan.At(place)
	switch {
	case !ok:
		return fault.New(nil, []string{"was it killed, or is memory short?"}, "the joiner of pod %q ended without a word", j.Pod.Title())
	case failing.Call.Nr == unix.SYS_SETNS && errno == unix.ESRCH, failing.Call.Nr == nsenter.Clone && errno == unix.ENOMEM:
		return fault.New(fault.ErrExited, []string{"podsh rm " + j.Pod.Title()}, "pod %q has ended", j.Pod.Title())
	case failing.Call.Nr == nsenter.Exec:
		return j.execFailed(errno)
	case why.Role == step.Folder:
		return plan.FolderFailed(step.FirstText(why.Call), errno, "--workdir names a folder of the pod's")
	}
	return perform.ExplainFailure(j.Plan, &nsenter.CallError{Place: place, Errno: errno})
}
