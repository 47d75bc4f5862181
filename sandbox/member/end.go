package member

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/proc"
)

// Terminate asks the members to end and returns those that have not at the deadline. What they start
// meanwhile is asked, too.
func (m *Group) Terminate(deadline time.Time) ([]proc.Process, error) {
	asked := map[int]proc.Member{}
	defer func() {
		for _, member := range asked {
			member.PIDFD.Close()
		}
	}()
	for {
		members, err := m.Members(asked)
		for _, member := range members {
			asked[member.PID] = member
			// One that is stopped takes a SIGTERM only when it goes on.
			err = errors.Join(err, member.Signal(unix.SIGTERM), member.Signal(unix.SIGCONT))
		}
		if err != nil || len(asked) == 0 {
			return nil, err
		}
		for pid, member := range asked {
			gone, err := proc.Ended(member.PIDFD, deadline)
			if err != nil {
				return nil, err
			}
			if !gone {
				return m.describe(asked)
			}
			member.PIDFD.Close()
			delete(asked, pid)
		}
	}
}

// describe tells of those that are still there.
func (m *Group) describe(members map[int]proc.Member) ([]proc.Process, error) {
	read, err := proc.NewReader(m.pod.Holder.PID)
	if err != nil {
		return nil, err
	}
	var processes []proc.Process
	for pid, member := range members {
		process, err := read.Read(pid)
		if err == nil && !proc.Exited(member.PIDFD) {
			processes = append(processes, process)
		}
	}
	return processes, nil
}

// Destroy kills the members that outlive their holder. In a pid namespace of their own there are none: the
// kernel kills all of it with its PID 1, pid_namespaces(7). Nobody can join any more, so this comes to an end.
func (m *Group) Destroy() error {
	if m.kind == "pid" {
		return nil
	}
	deadline := time.Now().Add(proc.UntilGiveUp)
	for {
		members, err := m.Members(nil)
		if err != nil || len(members) == 0 {
			return err
		}
		for _, member := range members {
			err = errors.Join(err, member.Signal(unix.SIGKILL))
		}
		for _, member := range members {
			gone, waitErr := proc.Ended(member.PIDFD, deadline)
			if waitErr == nil && !gone {
				waitErr = proc.Hanging("process %d of pod %q", member.PID, m.pod.Title())
			}
			err = errors.Join(err, waitErr)
			member.PIDFD.Close()
		}
		if err != nil {
			return err
		}
	}
}

// WakeParents lets those go on that are stopped, outside: a joiner after Ctrl-Z, say. A PID 1 does not end
// before all in its namespace are gone for good, and a zombie is not until its parent has taken its status.
func (m *Group) WakeParents() {
	if m.kind != "pid" {
		return
	}
	pids, _ := m.PIDs() // best effort: who does not wake is told of as hanging
	for _, pid := range pids {
		child, err := proc.ReadStatus(pid)
		parent, _ := strconv.Atoi(child["PPid"])
		if err != nil || parent == 0 || slices.Contains(pids, parent) {
			continue
		}
		fd, err := unix.PidfdOpen(parent, 0)
		if err != nil {
			continue
		}
		state, _ := proc.ReadStatus(parent)
		again, _ := proc.ReadStatus(pid) // behind the pidfd: is it still the parent?
		if strings.HasPrefix(state["State"], "T") && again["PPid"] == child["PPid"] {
			_ = unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0)
		}
		unix.Close(fd)
	}
}
