// Package store is the folder in which pods, containers and networks are described: it finds them, writes them down
// whole or not at all, and knows which names are taken and what has lost its owner. What becomes of them, it does not
// know: it starts, ends and removes nothing that runs.
package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
)

// Store is the folder in which pods are described. A pod lives in its holder; the store only says where.
//
//	lock                 flock(2): held while names and pods change
//	mnt/                 an empty folder: where a pod mounts its root before it moves into it
//	names/NAME           the id of the pod called so
//	pods/ID/pod.json     the pod
//	pods/ID/join         the plan of a plain join (nsenter.Saved)
//	pods/ID/net.json     its network, where that is more than localhost (pod.NetState)
//	pods/ID/control      the socket of the helper that leads with it
//	new-*, gone-*        a pod that is being written or removed, under the lock or one of its own; without, left over
type Store struct {
	Path string
}

// StoreOf is the store that describes a pod.
func StoreOf(p *pod.Pod) *Store { return &Store{p.Root} }

// Root says where the store is: $PODSH_ROOT; for root /run/podsh; else podsh below $XDG_RUNTIME_DIR, below
// /run/user/UID if that is ours, or podsh-UID in the folder for temporary files. nsenter.c knows the first
// three.
func Root() string {
	if root := os.Getenv("PODSH_ROOT"); root != "" {
		return root
	}
	uid := os.Geteuid()
	if uid == 0 {
		return "/run/podsh"
	}
	if runtime := os.Getenv("XDG_RUNTIME_DIR"); strings.HasPrefix(runtime, "/") {
		return filepath.Join(runtime, "podsh")
	}
	runtime := "/run/user/" + strconv.Itoa(uid)
	var st unix.Stat_t
	if unix.Stat(runtime, &st) == nil && int(st.Uid) == uid {
		return runtime + "/podsh"
	}
	return filepath.Join(os.TempDir(), "podsh-"+strconv.Itoa(uid))
}

// OpenStore makes sure that the store is there and that nobody else can write to it.
func OpenStore() (*Store, error) {
	s, err := placeStore()
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(s.Path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fault.WithHint(fmt.Errorf("runtime folder: %w", err), ownFolder)
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	for _, dir := range []string{"mnt", "names", "pods"} {
		if err := os.Mkdir(s.Below(dir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fault.WithHint(fmt.Errorf("runtime folder: %w", err), ownFolder)
		}
	}
	return s, nil
}

// LookAtStore is OpenStore for a dry run: it makes nothing. A store that is not there yet holds no pods.
func LookAtStore() (*Store, error) {
	s, err := placeStore()
	if err != nil {
		return nil, err
	}
	if err := s.check(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return s, nil
}

// ownFolder is the hint where the runtime folder is no good.
const ownFolder = "set PODSH_ROOT to a folder of your own, with mode 0700"

// placeStore finds where the store is to be.
func placeStore() (*Store, error) {
	path, err := filepath.Abs(Root())
	if err != nil {
		return nil, err
	}
	if err := CheckWay(path); err != nil {
		return nil, fmt.Errorf("runtime folder %s: %w", path, err)
	}
	return &Store{path}, nil
}

// check refuses a folder that others could change.
func (s *Store) check() error {
	var st unix.Stat_t
	if err := unix.Lstat(s.Path, &st); err != nil {
		return fault.WithHint(fmt.Errorf("runtime folder %s: %w", s.Path, err), ownFolder)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fault.New(nil, []string{ownFolder}, "runtime folder %s is not a folder", s.Path)
	case int(st.Uid) != os.Geteuid():
		return fault.New(nil, []string{ownFolder}, "runtime folder %s belongs to uid %d", s.Path, st.Uid)
	case st.Mode&0o077 != 0:
		return fault.New(nil, []string{"chmod 700 " + s.Path}, "runtime folder %s is open to others (mode %04o)", s.Path, st.Mode&0o7777)
	}
	return nil
}

// Below is a path in the store's folder.
func (s *Store) Below(elements ...string) string {
	return filepath.Join(append([]string{s.Path}, elements...)...)
}

// NewID makes 12 random hex digits.
func NewID() string {
	var id [6]byte
	_, _ = unix.Getrandom(id[:], 0) // never fails for so few: getrandom(2); crypto/rand would add 32 MB of bss
	return hex.EncodeToString(id[:])
}

// Lock takes the store's lock; the returned function gives it back, and so does the end of the process.
func (s *Store) Lock() (unlock func(), err error) {
	f, err := os.OpenFile(s.Below("lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := files.Lock(f, unix.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// Staged is the description of a new pod that is not in its place yet. It is locked: what is not is nobody's.
type Staged struct {
	Dir  string
	lock *os.File
}

// Stage writes a description where nobody looks for it.
func (s *Store) Stage(id string, list map[string][]byte) (_ *Staged, err error) {
	unlock, err := s.Lock()
	if err != nil {
		return nil, s.Full(err)
	}
	n := &Staged{Dir: s.Below("new-" + id)}
	if err = os.Mkdir(n.Dir, 0o700); err == nil {
		if n.lock, err = files.LockFolder(n.Dir, unix.LOCK_EX); err != nil {
			_ = os.Remove(n.Dir) // else the next sweep does it
		}
	}
	unlock()
	if err != nil {
		return nil, s.Full(err)
	}
	for name, content := range list {
		if err := os.WriteFile(filepath.Join(n.Dir, name), content, 0o600); err != nil {
			n.Discard()
			return nil, s.Full(err)
		}
	}
	return n, nil
}

// Discard takes it away again.
func (n *Staged) Discard() {
	_ = os.RemoveAll(n.Dir) // else the next sweep does it
	n.lock.Close()
}

// Place puts it where it belongs, and takes the pod's name; or it discards it.
func (s *Store) Place(n *Staged, p *pod.Pod) error {
	unlock, err := s.Lock()
	if err == nil {
		defer unlock()
		err = s.takeName(p.Spec.Name, p.ID)
	}
	if err == nil {
		err = os.Rename(n.Dir, s.Below("pods", p.ID))
	}
	if err != nil {
		n.Discard()
		return s.Full(err)
	}
	n.lock.Close()
	return nil
}

// Full adds to an error of writing into the store what to do about it.
func (s *Store) Full(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fault.WithHint(err, "make room in %s, or set PODSH_ROOT to another folder", s.Path)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return fault.WithHint(err, "chmod -R u+rwX %s, or set PODSH_ROOT to another folder", s.Path)
	}
	return err
}

// takeName enters a name, under the lock. A name whose pod is not there (a create that was killed) is free.
func (s *Store) takeName(name, id string) error {
	if name == "" {
		return nil
	}
	if other := s.Named(name); other != "" {
		return NameTaken(name, other)
	}
	temporary := s.Below("new-name-" + id)
	if err := os.WriteFile(temporary, []byte(id), 0o600); err != nil {
		os.Remove(temporary)
		return s.Full(err)
	}
	return os.Rename(temporary, s.Below("names", name))
}

// NameTaken is the error of a name that another pod has, of that id; it is an ErrNameTaken.
func NameTaken(name, id string) error {
	return fault.New(fault.ErrNameTaken, []string{fmt.Sprintf("podsh rm -f %s, or choose another --name", name)},
		"pod %q is there already (%s)", name, id)
}

// Named returns the id of the pod of that name, or "".
func (s *Store) Named(name string) string {
	if !spec.IsName(name) {
		return ""
	}
	id, err := os.ReadFile(s.Below("names", name))
	if err != nil || !IsID(string(id)) {
		return ""
	}
	if _, err := os.Lstat(s.Below("pods", string(id))); err != nil {
		return ""
	}
	return string(id)
}

// IsID says whether s has the form of an id, NewID's.
func IsID(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789abcdef") == ""
}

// Ids lists all pods by id.
func (s *Store) Ids() ([]string, error) {
	entries, err := os.ReadDir(s.Below("pods"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // LookAtStore makes none
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if IsID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Forget removes what describes a pod: first out of sight in one step, then bit by bit.
func (s *Store) Forget(p *pod.Pod) error {
	unlock, err := s.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	gone := s.Below("gone-" + p.ID)
	err = os.Rename(s.Below("pods", p.ID), gone)
	if s.IdOf(p.Spec.Name) == p.ID {
		_ = os.Remove(s.Below("names", p.Spec.Name)) // else takeName finds it free all the same
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(gone)
}

// IdOf is the id that is written for a name, whether or not its pod is still there; "": none.
func (s *Store) IdOf(name string) string {
	if name == "" {
		return ""
	}
	id, _ := os.ReadFile(s.Below("names", name))
	return string(id)
}

// Sweep removes what killed creates and removes have left.
func (s *Store) Sweep() error {
	entries, err := os.ReadDir(s.Path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if IsLeftover(e.Name()) {
			return s.sweep()
		}
	}
	return nil
}

// sweep holds the lock, and so does all that makes such files, or a lock of its own: what is there now is nobody's.
func (s *Store) sweep() error {
	unlock, err := s.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	err = s.sweepNames() // first: by the leftovers it is seen that there is something to sweep
	entries, readErr := os.ReadDir(s.Path)
	err = errors.Join(err, readErr)
	for _, e := range entries {
		if !IsLeftover(e.Name()) {
			continue
		}
		own, busy := files.LockFolder(s.Below(e.Name()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(busy, unix.EWOULDBLOCK) {
			continue
		}
		err = errors.Join(err, os.RemoveAll(s.Below(e.Name())))
		if busy == nil {
			own.Close()
		}
	}
	return err
}

// sweepNames removes names whose pods are not there: whoever was to bring or to remove one was killed between the two.
func (s *Store) sweepNames() error {
	entries, err := os.ReadDir(s.Below("names"))
	for _, e := range entries {
		id, readErr := os.ReadFile(s.Below("names", e.Name()))
		if readErr == nil && IsID(string(id)) {
			_, readErr = os.Lstat(s.Below("pods", string(id)))
		}
		if errors.Is(readErr, fs.ErrNotExist) {
			err = errors.Join(err, os.Remove(s.Below("names", e.Name())))
		}
	}
	return err
}

// IsLeftover says whether a folder is one that a create or a remove was killed over.
func IsLeftover(name string) bool {
	return strings.HasPrefix(name, "new-") || strings.HasPrefix(name, "gone-")
}
