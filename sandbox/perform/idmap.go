package perform

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/doctor"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/store"
)

// IdsRefused says that newuidmap did not do what /etc/subuid promises.
type IdsRefused struct{ why string }

func (e *IdsRefused) Error() string { return e.why }

// WriteMaps writes the maps of the user namespace that pid is in: by itself where it may, else through the
// two programs that may, side by side.
func WriteMaps(p *pod.Pod, pid int, throughPrograms bool) error {
	if throughPrograms && !p.OneID {
		return newIDMaps(p, pid)
	}
	proc := fmt.Sprintf("/proc/%d/", pid)
	files := []struct{ name, text string }{
		{"setgroups", "deny"}, // gid_map is refused until then: user_namespaces(7)
		{"uid_map", ids.Lines(p.UIDMap)}, {"gid_map", ids.Lines(p.GIDMap)},
	}
	if !p.OneID {
		files = files[1:]
	}
	for _, file := range files {
		if err := os.WriteFile(proc+file.name, []byte(file.text), 0); err != nil {
			var errno syscall.Errno
			errors.As(err, &errno)
			return fault.WithHints(err, doctor.HintsFor(file.name, errno))
		}
	}
	return nil
}

// WriteMapsBelow writes the maps of a user namespace that is a child of the hub's, where its ids must be mapped:
// whoever does it must be in there, user_namespaces(7). No newuidmap is needed.
func WriteMapsBelow(p *pod.Pod, hub *pod.Pod, pid int) error {
	pidfd, err := store.Open(hub)
	if err != nil {
		return err
	}
	defer pidfd.Close()
	uids, err := ids.SeenIn(p.UIDMap, hub.UIDMap)
	if err != nil {
		return err
	}
	gids, err := ids.SeenIn(p.GIDMap, hub.GIDMap)
	if err != nil {
		return err
	}
	m, err := StartMaker(pidfd, unix.CLONE_NEWUSER, capability.CAP_SETUID, capability.CAP_SETGID, capability.CAP_SYS_ADMIN, capability.CAP_SETFCAP)
	if err != nil {
		return err
	}
	defer m.Close()
	b := &plan.Builder{}
	files := []struct{ name, text string }{{"setgroups", "deny"}, {"uid_map", ids.Lines(uids)}, {"gid_map", ids.Lines(gids)}}
	if !p.OneID {
		files = files[1:]
	}
	for _, file := range files {
		fd := b.Call(unix.SYS_OPENAT, unix.AT_FDCWD, fmt.Sprintf("/proc/%d/%s", pid, file.name), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		b.Call(unix.SYS_WRITE, fd, file.text, len(file.text))
		b.Call(unix.SYS_CLOSE, fd)
	}
	_, err = m.Do(b)
	return err
}

func newIDMaps(p *pod.Pod, pid int) error {
	mappers := []*mapper{{name: "newuidmap", ids: p.UIDMap}, {name: "newgidmap", ids: p.GIDMap}}
	for _, m := range mappers {
		m.err = m.start(pid)
	}
	var refused *IdsRefused
	for _, m := range mappers {
		if said, err := m.wait(); err != nil {
			refused = &IdsRefused{fmt.Sprintf("%s: %s", m.name, doctor.FirstLine(said, err))}
		}
	}
	if refused == nil {
		return nil
	}
	return fault.WithHints(refused, doctor.HintsFor("newuidmap", unix.EPERM))
}

// mapper is newuidmap or newgidmap at work. It is started by hand: os/exec would try out pidfds first, and start
// threads that copy what is said, which takes longer than the map.
type mapper struct {
	name string
	ids  []ids.Map
	pid  int
	said *os.File
	err  error // of its start
}

func (m *mapper) start(target int) error {
	path, err := doctor.ProgramPath(m.name)
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	said, end, err := os.Pipe()
	if err != nil {
		return err
	}
	defer end.Close()
	argv := append([]string{m.name, strconv.Itoa(target)}, strings.Fields(ids.Words(m.ids))...)
	m.pid, err = syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{null.Fd(), null.Fd(), end.Fd()},
	})
	if err != nil {
		said.Close()
		return fmt.Errorf("start %s: %w", path, err)
	}
	m.said = said
	return nil
}

// wait waits until it has ended, and returns what it said.
func (m *mapper) wait() (said string, err error) {
	if m.err != nil {
		return "", m.err
	}
	defer m.said.Close()
	text, err := io.ReadAll(m.said)
	if status := proc.WaitFor(m.pid); status != 0 && err == nil {
		err = fmt.Errorf("exit status %d", proc.AsShell(status))
	}
	return string(text), err
}
