package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/proc"
)

// What pods and containers write on disk is in folders beside each other (DiskFolder). Pods are described in a folder that
// mostly lies in memory: so after a reboot, or the last logout, there are folders whose owners are not described any more.
// What containers wrote stays until somebody asks for its removal. Two links in each folder tell:
//
//	pod    where the owner is described: STORE/pods/ID, or STORE/pods/ID/containers/ID
//	store  what tells whether an owner that is not described is gone: see claim

// ClaimDisk says whose a folder is: of a pod with this holder, or one that has none yet. It is locked meanwhile.
func (s *Store) ClaimDisk(dir, owner string, holder proc.ID) error {
	now, err := s.claim()
	if err != nil {
		return err
	}
	now.holder = holder
	for _, link := range [][2]string{{"pod", owner}, {"store", now.String()}} { // with the first alone it counts as an earlier podsh's
		if err := os.Symlink(link[1], filepath.Join(dir, link[0])); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// A claim is where and when a folder got its owner. What is told on another machine, in another pid namespace, or by a
// folder at the store's path that is another one, says nothing about the owner.
type claim struct {
	boot, machine string
	pids          uint64 // the pid namespace that holder's pid is of
	holder        proc.ID
	store         string // device, number and path of its folder
}

func (s *Store) claim() (c claim, err error) {
	if c.boot, err = proc.BootID(); err != nil {
		return c, err
	}
	machine, _ := os.ReadFile("/etc/machine-id") // not everywhere, machine-id(5)
	c.machine = strings.TrimSpace(string(machine))
	if c.pids, err = proc.NamespaceInode("self", "pid"); err != nil {
		return c, err
	}
	var st unix.Stat_t
	if err := unix.Stat(s.Path, &st); err != nil {
		return c, fmt.Errorf("stat %s: %w", s.Path, err)
	}
	c.store = fmt.Sprintf("%d:%d %s", st.Dev, st.Ino, s.Path)
	return c, nil
}

const claimForm = "%36s %q %d %d:%q:%d "

func (c claim) String() string {
	return fmt.Sprintf(claimForm, c.boot, c.machine, c.pids, c.holder.PID, c.holder.Started, c.holder.PIDFDInode) + c.store
}

func parseClaim(text string) (c claim, ok bool) {
	n, err := fmt.Sscanf(text, claimForm, &c.boot, &c.machine, &c.pids, &c.holder.PID, &c.holder.Started, &c.holder.PIDFDInode)
	head := claim{boot: c.boot, machine: c.machine, pids: c.pids, holder: c.holder}.String()
	c.store, ok = strings.CutPrefix(text, head)
	c.holder.BootID = c.boot
	return c, n == 6 && err == nil && ok
}

// A leftover is what is in a folder without an owner.
type leftover int

const (
	notLeft   leftover = iota // it has its owner, or may have
	LeftBare                  // nothing, or what goes with its pod anyway
	leftWrote                 // what a container wrote
)

// LeftIn looks at the folder of an owner.
func LeftIn(dir string) leftover {
	owner, err := os.Readlink(filepath.Join(dir, "pod"))
	if errors.Is(err, fs.ErrNotExist) {
		return notLeft // in the making, or a script's
	}
	if _, err = os.Stat(owner); !errors.Is(err, fs.ErrNotExist) || !ownerIsGone(dir) {
		return notLeft
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return notLeft
	}
	isPod, wrote, volumes := filepath.Base(filepath.Dir(owner)) == "pods", false, false
	for _, entry := range entries {
		wrote = wrote || entry.Name() != "pod" && entry.Name() != "store"
		volumes = volumes || entry.Name() == "volumes"
	}
	if !wrote || isPod && !volumes {
		return LeftBare
	}
	return leftWrote
}

// ownerIsGone says whether an owner that is not described is gone.
func ownerIsGone(dir string) bool {
	text, err := os.Readlink(filepath.Join(dir, "store"))
	if err != nil {
		return true // an earlier podsh
	}
	then, ok := parseClaim(text)
	_, path, _ := strings.Cut(then.store, " ")
	now, err := (&Store{path}).claim()
	switch {
	case !ok, now.boot == "", then.machine != now.machine:
		return false
	case then.boot != now.boot:
		return true
	case then.pids == now.pids && then.holder.PID != 0:
		return !then.holder.Alive()
	}
	return err == nil && then.store == now.store
}

// Lost lists the folders with what containers wrote that are not described any more.
func Lost() ([]string, error) {
	all := DiskFolder("")
	entries, err := os.ReadDir(all)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var lost []string
	for _, entry := range entries {
		if dir := filepath.Join(all, entry.Name()); LeftIn(dir) == leftWrote {
			lost = append(lost, dir)
		}
	}
	return lost, err
}
