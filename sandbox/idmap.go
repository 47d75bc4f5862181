package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/capability"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/store"
)

// subids reads the ranges of a user, known by name or by number, from /etc/subuid or /etc/subgid. No file is
// no range.
func subids(path, name string, uid int) ([]ids.Range, error) {
	entries, err := user.ParseSubIDFileFilter(path, func(e user.SubID) bool {
		return e.Name != "" && (e.Name == name || e.Name == fmt.Sprint(uid))
	})
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var ranges []ids.Range
	for _, e := range entries {
		if e.SubID < 0 || e.Count <= 0 || e.SubID+e.Count > 1<<32-1 || e.SubID > 1<<32-1 || e.Count > 1<<32-1 {
			continue // newuidmap would refuse it as well
		}
		ranges = append(ranges, ids.Range{Start: uint32(e.SubID), Count: uint32(e.Count)})
	}
	return ranges, nil
}

// YourMap is a map that this user may ask for, as flags: to the ranges that he has; root has all, and takes ids that are
// nobody's.
func YourMap() string {
	m := thisMachine()
	uid := os.Geteuid()
	uids, _ := subids("/etc/subuid", userName(uint32(uid)), uid) // for a hint alone
	gids, _ := subids("/etc/subgid", userName(uint32(uid)), uid)
	switch {
	case len(uids) > 0 && len(gids) > 0 && uids[0] == gids[0]:
		return fmt.Sprintf("--uidmap 0:%d:%d", uids[0].Start, uids[0].Count)
	case len(uids) > 0 && len(gids) > 0:
		return fmt.Sprintf("--uidmap 0:%d:%d --gidmap 0:%d:%d", uids[0].Start, uids[0].Count, gids[0].Start, gids[0].Count)
	case uid == 0:
		return fmt.Sprintf("--uidmap 0:%d:65536", nextRange(m.text("/etc/subuid")+"\n"+m.text("/etc/subgid")))
	}
	return fmt.Sprintf("--uidmap 0:%d:1 --gidmap 0:%d:1", uid, os.Getegid())
}

// idsRefused says that newuidmap did not do what /etc/subuid promises.
type idsRefused struct{ why string }

func (e *idsRefused) Error() string { return e.why }

// writeMaps writes the maps of the user namespace that pid is in: by itself where it may, else through the
// two programs that may, side by side.
func writeMaps(p *pod.Pod, pid int, throughPrograms bool) error {
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
			return fault.WithHints(err, hintsFor(file.name, errno))
		}
	}
	return nil
}

func newIDMaps(p *pod.Pod, pid int) error {
	mappers := []*mapper{{name: "newuidmap", ids: p.UIDMap}, {name: "newgidmap", ids: p.GIDMap}}
	for _, m := range mappers {
		m.err = m.start(pid)
	}
	var refused *idsRefused
	for _, m := range mappers {
		if said, err := m.wait(); err != nil {
			refused = &idsRefused{fmt.Sprintf("%s: %s", m.name, firstLine(said, err))}
		}
	}
	if refused == nil {
		return nil
	}
	return fault.WithHints(refused, hintsFor("newuidmap", unix.EPERM))
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
	path, err := programPath(m.name)
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

func firstLine(text string, err error) string {
	if line, _, _ := strings.Cut(strings.TrimSpace(text), "\n"); line != "" {
		return line
	}
	return err.Error()
}

// writeMapsBelow writes the maps of a user namespace that is a child of the hub's, where its ids must be mapped:
// whoever does it must be in there, user_namespaces(7). No newuidmap is needed.
func writeMapsBelow(p *pod.Pod, hub *pod.Pod, pid int) error {
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
	m, err := startMaker(pidfd, unix.CLONE_NEWUSER, capability.CAP_SETUID, capability.CAP_SETGID, capability.CAP_SYS_ADMIN, capability.CAP_SETFCAP)
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
	_, err = m.do(b)
	return err
}
