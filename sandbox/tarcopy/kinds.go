package tarcopy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// replaceable says whether a file or a link may take the place, and whether there is one already.
func (s spot) replaceable() (there bool, err error) {
	st, err := statAt(s.parent, s.name)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, call("stat", s.full, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFLNK:
		return true, nil
	case unix.S_IFDIR:
		return false, fmt.Errorf("%q is a folder, and a file cannot be copied onto it", s.full)
	}
	return false, fmt.Errorf("%q is no file, folder or link, and is not replaced", s.full)
}

// clear makes room for a link.
func (s spot) clear() error {
	there, err := s.replaceable()
	if err == nil && there {
		err = s.taken("remove", unix.Unlinkat(int(s.parent.Fd()), s.name, 0))
	}
	return err
}

// taken words why a name can't be had.
func (s spot) taken(verb string, err error) error {
	if errors.Is(err, unix.EBUSY) { // rename(2), unlink(2): a mount point
		return fmt.Errorf("%q is mounted there by itself, and cannot be replaced", s.full)
	}
	return call(verb, s.full, err)
}

// halfName is what a file is called until it is whole.
func halfName() string {
	var random [8]byte
	_, _ = unix.Getrandom(random[:], 0) // never fails for so few: getrandom(2)
	return fmt.Sprintf(".podsh-cp-%x", random)
}

// file writes a file under a name of its own first: what was there is replaced by a whole one, or stays.
func (p *placer) file(s spot, e entry) (err error) {
	if _, err := s.replaceable(); err != nil {
		return err
	}
	half := spot{parent: s.parent, name: halfName(), full: s.full}
	f, err := openAt(half.parent, half.name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
	if err != nil {
		return call("create", s.full, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			unix.Unlinkat(int(half.parent.Fd()), half.name, 0)
		}
	}()
	if _, err := io.Copy(f, e.contents); err != nil {
		return call("write", s.full, err)
	}
	a, err := p.attributes(e)
	if err != nil {
		return err
	}
	if err := p.dress(f, half, a); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return call("close", s.full, err)
	}
	if err := unix.Renameat(int(half.parent.Fd()), half.name, int(s.parent.Fd()), s.name); err != nil {
		return s.taken("rename", err)
	}
	p.placed[s.full] = true
	return nil
}

func (p *placer) folder(s spot, e entry) error {
	a, err := p.attributes(e)
	if err != nil {
		return err
	}
	err = unix.Mkdirat(int(s.parent.Fd()), s.name, 0o700)
	if err == nil {
		p.folders = append(p.folders, made{strings.Split(s.full, "/"), a})
		return nil
	}
	if !errors.Is(err, unix.EEXIST) {
		return call("mkdir", s.full, err)
	}
	st, err := statAt(s.parent, s.name)
	if err != nil {
		return call("stat", s.full, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("%q is not a folder, and a folder cannot be copied onto it", s.full)
	}
	return nil
}

func (p *placer) symlink(s spot, e entry) error {
	a, err := p.attributes(e)
	if err != nil {
		return err
	}
	if err := s.clear(); err != nil {
		return err
	}
	delete(p.placed, s.full)
	if err := unix.Symlinkat(e.Linkname, int(s.parent.Fd()), s.name); err != nil {
		return call("symlink", s.full, err)
	}
	if p.options.Owners {
		err := unix.Fchownat(int(s.parent.Fd()), s.name, a.uid, a.gid, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil {
			return s.refused(a, err)
		}
	}
	return s.setTime(a)
}

// hardlink links to a file of this tar only: another one's mode and contents are none of its business.
func (p *placer) hardlink(s spot, e entry) error {
	target := strings.Join(e.target, "/")
	if !p.placed[target] || target == s.full {
		return fmt.Errorf("the entry %q is a hard link to %q, which is no file of this copy", e.Name, e.Linkname)
	}
	if err := s.clear(); err != nil {
		return err
	}
	// The folder of the entry has to stay open while that of its target is looked for.
	here, err := openAt(s.parent, ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return call("open", s.full, err)
	}
	defer here.Close()
	t, err := p.spot(e.target)
	if err != nil {
		return err
	}
	// Without AT_SYMLINK_FOLLOW a link in the target's place would be linked itself: link(2).
	err = unix.Linkat(int(t.parent.Fd()), t.name, int(here.Fd()), s.name, 0)
	if err != nil {
		return call("link", s.full, err)
	}
	p.placed[s.full] = true
	return nil
}

// attributes are those of an entry that it may have here.
func (p *placer) attributes(e entry) (attributes, error) {
	a := attributes{mode: uint32(e.Mode) & 0o1777, uid: e.Uid, gid: e.Gid, mtime: e.ModTime}
	if !p.options.Owners {
		return a, nil
	}
	a.mode = uint32(e.Mode) & 0o7777
	// The highest number means that the owner stays, which would be ours: chown(2).
	const most = 1<<32 - 2
	if a.uid < 0 || a.gid < 0 || int64(a.uid) > most || int64(a.gid) > most {
		return a, fmt.Errorf("the entry %q belongs to %d:%d, which are no ids", e.Name, a.uid, a.gid)
	}
	return a, nil
}

// dress gives an open file or folder its owner, mode and time. The owner comes first, since a change of it
// takes setuid and setgid away: chown(2).
func (p *placer) dress(f *os.File, s spot, a attributes) error {
	if p.options.Owners {
		if err := unix.Fchown(int(f.Fd()), a.uid, a.gid); err != nil {
			return s.refused(a, err)
		}
	}
	if err := unix.Fchmod(int(f.Fd()), a.mode); err != nil {
		return call("chmod", s.full, err)
	}
	return s.setTime(a)
}

// refused words why a file can't be had by its owner.
func (s spot) refused(a attributes, err error) error {
	if errors.Is(err, unix.EINVAL) { // an id that is not mapped, user_namespaces(7)
		return fmt.Errorf("%q belongs to %d:%d, and there are no such ids here", s.full, a.uid, a.gid)
	}
	return call("chown", s.full, err)
}

func (s spot) setTime(a attributes) error {
	mtime, err := unix.TimeToTimespec(a.mtime)
	if err == nil {
		times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
		err = unix.UtimesNanoAt(int(s.parent.Fd()), s.name, times, unix.AT_SYMLINK_NOFOLLOW)
	}
	return call("utimensat", s.full, err)
}

// finish dresses the folders, the deepest first: one that is not writable or searchable any more is not
// needed any more either.
func (p *placer) finish() error {
	for n := len(p.folders) - 1; n >= 0; n-- {
		folder := p.folders[n]
		s, err := p.spot(folder.parts)
		if err != nil {
			return err
		}
		f, err := openAt(s.parent, s.name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return call("open", s.full, err)
		}
		err = p.dress(f, s, folder.attributes)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
