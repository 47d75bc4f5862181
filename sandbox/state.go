package sandbox

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
//	pods/ID/net.json     its network, where that is more than localhost (NetState)
//	pods/ID/control      the socket of the helper that leads with it
//	new-*, gone-*        a pod that is being written or removed, under the lock or one of its own; without, left over
type Store struct {
	Path string
}

// storeOf is the store that describes a pod.
func storeOf(p *pod.Pod) *Store { return &Store{p.Root} }

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
	path, err := filepath.Abs(Root())
	if err != nil {
		return nil, err
	}
	s := &Store{path}
	const hint = "set PODSH_ROOT to a folder of your own, with mode 0700"
	if err := checkWay(path); err != nil {
		return nil, fmt.Errorf("runtime folder %s: %w", path, err)
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fault.WithHint(fmt.Errorf("runtime folder: %w", err), hint)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, fault.WithHint(fmt.Errorf("runtime folder %s: %w", path, err), hint)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return nil, fault.New(nil, []string{hint}, "runtime folder %s is not a folder", path)
	case int(st.Uid) != os.Geteuid():
		return nil, fault.New(nil, []string{hint}, "runtime folder %s belongs to uid %d", path, st.Uid)
	case st.Mode&0o077 != 0:
		return nil, fault.New(nil, []string{"chmod 700 " + path}, "runtime folder %s is open to others (mode %04o)", path, st.Mode&0o7777)
	}
	for _, dir := range []string{"mnt", "names", "pods"} {
		if err := os.Mkdir(s.path(dir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fault.WithHint(fmt.Errorf("runtime folder: %w", err), hint)
		}
	}
	return s, nil
}

func (s *Store) path(elements ...string) string {
	return filepath.Join(append([]string{s.Path}, elements...)...)
}

// newID makes 12 random hex digits.
func newID() string {
	var id [6]byte
	_, _ = unix.Getrandom(id[:], 0) // never fails for so few: getrandom(2); crypto/rand would add 32 MB of bss
	return hex.EncodeToString(id[:])
}

// lock takes the store's lock; the returned function gives it back, and so does the end of the process.
func (s *Store) lock() (unlock func(), err error) {
	f, err := os.OpenFile(s.path("lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := files.Lock(f, unix.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// staged is the description of a new pod that is not in its place yet. It is locked: what is not is nobody's.
type staged struct {
	dir  string
	lock *os.File
}

// stage writes a description where nobody looks for it.
func (s *Store) stage(id string, list map[string][]byte) (_ *staged, err error) {
	unlock, err := s.lock()
	if err != nil {
		return nil, s.full(err)
	}
	n := &staged{dir: s.path("new-" + id)}
	if err = os.Mkdir(n.dir, 0o700); err == nil {
		if n.lock, err = files.LockFolder(n.dir, unix.LOCK_EX); err != nil {
			_ = os.Remove(n.dir) // else the next sweep does it
		}
	}
	unlock()
	if err != nil {
		return nil, s.full(err)
	}
	for name, content := range list {
		if err := os.WriteFile(filepath.Join(n.dir, name), content, 0o600); err != nil {
			n.discard()
			return nil, s.full(err)
		}
	}
	return n, nil
}

func (n *staged) discard() {
	_ = os.RemoveAll(n.dir) // else the next sweep does it
	n.lock.Close()
}

// place puts it where it belongs, and takes the pod's name; or it discards it.
func (s *Store) place(n *staged, p *pod.Pod) error {
	unlock, err := s.lock()
	if err == nil {
		defer unlock()
		err = s.takeName(p.Spec.Name, p.ID)
	}
	if err == nil {
		err = os.Rename(n.dir, s.path("pods", p.ID))
	}
	if err != nil {
		n.discard()
		return s.full(err)
	}
	n.lock.Close()
	return nil
}

func (s *Store) full(err error) error {
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
	if other := s.named(name); other != "" {
		return nameTaken(name, other)
	}
	temporary := s.path("new-name-" + id)
	if err := os.WriteFile(temporary, []byte(id), 0o600); err != nil {
		os.Remove(temporary)
		return s.full(err)
	}
	return os.Rename(temporary, s.path("names", name))
}

func nameTaken(name, id string) error {
	return fault.New(fault.ErrNameTaken, []string{fmt.Sprintf("podsh rm -f %s, or choose another --name", name)},
		"pod %q is there already (%s)", name, id)
}

// named returns the id of the pod of that name, or "".
func (s *Store) named(name string) string {
	if !spec.IsName(name) {
		return ""
	}
	id, err := os.ReadFile(s.path("names", name))
	if err != nil || !isID(string(id)) {
		return ""
	}
	if _, err := os.Lstat(s.path("pods", string(id))); err != nil {
		return ""
	}
	return string(id)
}

func isID(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789abcdef") == ""
}

// ids lists all pods by id.
func (s *Store) ids() ([]string, error) {
	entries, err := os.ReadDir(s.path("pods"))
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if isID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// forget removes what describes a pod: first out of sight in one step, then bit by bit.
func (s *Store) forget(p *pod.Pod) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	gone := s.path("gone-" + p.ID)
	err = os.Rename(s.path("pods", p.ID), gone)
	if s.idOf(p.Spec.Name) == p.ID {
		_ = os.Remove(s.path("names", p.Spec.Name)) // else takeName finds it free all the same
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(gone)
}

func (s *Store) idOf(name string) string {
	if name == "" {
		return ""
	}
	id, _ := os.ReadFile(s.path("names", name))
	return string(id)
}

// Sweep removes what killed creates and removes have left.
func (s *Store) Sweep() error {
	entries, err := os.ReadDir(s.Path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if isLeftover(e.Name()) {
			return s.sweep()
		}
	}
	return nil
}

// sweep holds the lock, and so does all that makes such files, or a lock of its own: what is there now is nobody's.
func (s *Store) sweep() error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	err = s.sweepNames() // first: by the leftovers it is seen that there is something to sweep
	entries, readErr := os.ReadDir(s.Path)
	err = errors.Join(err, readErr)
	for _, e := range entries {
		if !isLeftover(e.Name()) {
			continue
		}
		own, busy := files.LockFolder(s.path(e.Name()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(busy, unix.EWOULDBLOCK) {
			continue
		}
		err = errors.Join(err, os.RemoveAll(s.path(e.Name())))
		if busy == nil {
			own.Close()
		}
	}
	return err
}

// sweepNames removes names whose pods are not there: whoever was to bring or to remove one was killed between the two.
func (s *Store) sweepNames() error {
	entries, err := os.ReadDir(s.path("names"))
	for _, e := range entries {
		id, readErr := os.ReadFile(s.path("names", e.Name()))
		if readErr == nil && isID(string(id)) {
			_, readErr = os.Lstat(s.path("pods", string(id)))
		}
		if errors.Is(readErr, fs.ErrNotExist) {
			err = errors.Join(err, os.Remove(s.path("names", e.Name())))
		}
	}
	return err
}

func isLeftover(name string) bool {
	return strings.HasPrefix(name, "new-") || strings.HasPrefix(name, "gone-")
}
