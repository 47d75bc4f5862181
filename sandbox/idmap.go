package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/capability"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
)

// Range is a row of ids of the host that a user may use in user namespaces: a line of subuid(5) or subgid(5).
type Range struct {
	Start uint32 `json:"start"`
	Count uint32 `json:"count"`
}

// subids reads the ranges of a user, known by name or by number, from /etc/subuid or /etc/subgid. No file is
// no range.
func subids(path, name string, uid int) ([]Range, error) {
	entries, err := user.ParseSubIDFileFilter(path, func(e user.SubID) bool {
		return e.Name != "" && (e.Name == name || e.Name == fmt.Sprint(uid))
	})
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var ranges []Range
	for _, e := range entries {
		if e.SubID < 0 || e.Count <= 0 || e.SubID+e.Count > 1<<32-1 || e.SubID > 1<<32-1 || e.Count > 1<<32-1 {
			continue // newuidmap would refuse it as well
		}
		ranges = append(ranges, Range{uint32(e.SubID), uint32(e.Count)})
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

// rootMap maps the pod's root to the user outside, and the ids above it to the ranges.
func rootMap(outside uint32, ranges []Range) []IDMap {
	return appendRanges([]IDMap{{0, outside, 1}}, 1, ranges)
}

// rangeMap maps the ids from 0 to the ranges alone: for root, whose own id stays outside.
func rangeMap(ranges []Range) []IDMap {
	return appendRanges(nil, 0, ranges)
}

func appendRanges(ids []IDMap, inside uint32, ranges []Range) []IDMap {
	for _, r := range ranges {
		ids = append(ids, IDMap{inside, r.Start, r.Count})
		inside += r.Count
	}
	return ids
}

// keepMap maps the user's id to itself, and all others to the ranges.
func keepMap(own uint32, ranges []Range) []IDMap {
	var ids []IDMap
	next := uint32(0)
	for _, r := range ranges {
		if next < own { // the part below our own id
			n := min(r.Count, own-next)
			ids = append(ids, IDMap{next, r.Start, n})
			next, r.Start, r.Count = next+n, r.Start+n, r.Count-n
		}
		if r.Count > 0 {
			ids = append(ids, IDMap{max(next, own+1), r.Start, r.Count})
			next = max(next, own+1) + r.Count
		}
	}
	return append(ids, IDMap{own, own, 1})
}

// lines is the text of a uid_map.
func lines(ids []IDMap) string {
	var text strings.Builder
	for _, m := range ids {
		fmt.Fprintln(&text, m)
	}
	return text.String()
}

// words are the arguments of newuidmap(1) behind the pid.
func words(ids []IDMap) string {
	var text []string
	for _, m := range ids {
		text = append(text, m.String())
	}
	return strings.Join(text, " ")
}

// idsRefused says that newuidmap did not do what /etc/subuid promises.
type idsRefused struct{ why string }

func (e *idsRefused) Error() string { return e.why }

// writeMaps writes the maps of the user namespace that pid is in: by itself where it may, else through the
// two programs that may, side by side.
func (p *Pod) writeMaps(pid int, throughPrograms bool) error {
	if throughPrograms && !p.OneID {
		return p.newIDMaps(pid)
	}
	proc := fmt.Sprintf("/proc/%d/", pid)
	files := []struct{ name, text string }{
		{"setgroups", "deny"}, // gid_map is refused until then: user_namespaces(7)
		{"uid_map", lines(p.UIDMap)}, {"gid_map", lines(p.GIDMap)},
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

func (p *Pod) newIDMaps(pid int) error {
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
	ids  []IDMap
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
	argv := append([]string{m.name, strconv.Itoa(target)}, strings.Fields(words(m.ids))...)
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
	if status := waitFor(m.pid); status != 0 && err == nil {
		err = fmt.Errorf("exit status %d", asShell(status))
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
func (p *Pod) writeMapsBelow(hub *Pod, pid int) error {
	pidfd, err := hub.Open()
	if err != nil {
		return err
	}
	defer pidfd.Close()
	uids, err := idsSeenIn(p.UIDMap, hub.UIDMap)
	if err != nil {
		return err
	}
	gids, err := idsSeenIn(p.GIDMap, hub.GIDMap)
	if err != nil {
		return err
	}
	m, err := startMaker(pidfd, unix.CLONE_NEWUSER, capability.CAP_SETUID, capability.CAP_SETGID, capability.CAP_SYS_ADMIN, capability.CAP_SETFCAP)
	if err != nil {
		return err
	}
	defer m.Close()
	b := &builder{}
	files := []struct{ name, text string }{{"setgroups", "deny"}, {"uid_map", lines(uids)}, {"gid_map", lines(gids)}}
	if !p.OneID {
		files = files[1:]
	}
	for _, file := range files {
		fd := b.call(unix.SYS_OPENAT, unix.AT_FDCWD, fmt.Sprintf("/proc/%d/%s", pid, file.name), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		b.call(unix.SYS_WRITE, fd, file.text, len(file.text))
		b.call(unix.SYS_CLOSE, fd)
	}
	_, err = m.do(b)
	return err
}

// idsSeenIn says what ids of the host are in a user namespace that has these.
func idsSeenIn(ids, has []IDMap) ([]IDMap, error) {
	var inside []IDMap
	for _, m := range ids {
		for m.Count > 0 {
			i := slices.IndexFunc(has, func(h IDMap) bool { return m.Outside >= h.Outside && m.Outside-h.Outside < h.Count })
			if i < 0 {
				return nil, fault.New(nil, []string{"leave out --uidmap and --gidmap, or the networks"}, "id %d of the host is not among those that pods on networks can have", m.Outside)
			}
			offset := m.Outside - has[i].Outside
			n := min(m.Count, has[i].Count-offset)
			inside = append(inside, IDMap{m.Inside, has[i].Inside + offset, n})
			m = IDMap{m.Inside + n, m.Outside + n, m.Count - n}
		}
	}
	return inside, nil
}
