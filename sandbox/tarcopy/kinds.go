package tarcopy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// replaceable is an error if neither a file nor a link may take the place.
func (s spot) replaceable() error {
	st, err := statAt(s.parent, s.name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return call("stat", s.shown, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFLNK:
		return nil
	case unix.S_IFDIR:
		return fmt.Errorf("%q is a folder, and a file cannot be copied onto it", s.shown)
	}
	return fmt.Errorf("%q is no file, folder or link, and is not replaced", s.shown)
}

// half is where a file or a link is made that is to take the place: what is there is replaced by a whole one, or stays.
func (s spot) half() spot {
	var random [8]byte
	_, _ = unix.Getrandom(random[:], 0) // never fails for so few: getrandom(2)
	s.name = fmt.Sprintf(".podsh-cp-%x", random)
	return s
}

// replace makes what takes the place, and lets it take it.
func (s spot) replace(make func(half spot) error) error {
	if err := s.replaceable(); err != nil {
		return err
	}
	half := s.half()
	err := make(half)
	if err == nil {
		err = call("rename", s.shown, unix.Renameat(int(half.parent.Fd()), half.name, int(s.parent.Fd()), s.name))
		if errors.Is(err, unix.EBUSY) { // a mount point: rename(2)
			err = fmt.Errorf("%q is mounted there by itself, and cannot be replaced", s.shown)
		}
	}
	// It is gone, but for an error, and where both are names of one file: then rename(2) does nothing.
	_ = unix.Unlinkat(int(half.parent.Fd()), half.name, 0)
	return err
}

func (p *placer) file(s spot, e entry) error {
	a, err := p.attributes(e)
	if err != nil {
		return err
	}
	err = s.replace(func(half spot) error {
		f, err := openAt(half.parent, half.name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
		if err != nil {
			return call("create", s.shown, err)
		}
		if err = call("write", s.shown, p.fill(f, e.contents)); err == nil {
			err = p.dress(f, half, a)
		}
		if closeErr := f.Close(); err == nil {
			err = call("close", s.shown, closeErr)
		}
		return err
	})
	if err == nil {
		p.placed[s.full] = true
	}
	return err
}

// fill writes a file, but for what is nothing but zeros: a file of holes may be larger than any disk.
func (p *placer) fill(f *os.File, r io.Reader) error {
	if p.buffer == nil {
		p.buffer = make([]byte, 64<<10)
	}
	size := int64(0)
	for {
		n, err := r.Read(p.buffer)
		if err != nil && err != io.EOF {
			return err
		}
		if text := p.buffer[:n]; len(bytes.TrimLeft(text, "\x00")) > 0 {
			if _, err := f.WriteAt(text, size); err != nil {
				return err
			}
		}
		size += int64(n)
		if err != nil {
			return f.Truncate(size)
		}
	}
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
		return call("mkdir", s.shown, err)
	}
	st, err := statAt(s.parent, s.name)
	if err != nil {
		return call("stat", s.shown, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("%q is not a folder, and a folder cannot be copied onto it", s.shown)
	}
	return nil
}

func (p *placer) symlink(s spot, e entry) error {
	a, err := p.attributes(e)
	if err != nil {
		return err
	}
	err = s.replace(func(half spot) error {
		if err := unix.Symlinkat(e.Linkname, int(half.parent.Fd()), half.name); err != nil {
			return call("symlink", s.shown, err)
		}
		if p.options.Owners {
			err := unix.Fchownat(int(half.parent.Fd()), half.name, a.uid, a.gid, unix.AT_SYMLINK_NOFOLLOW)
			if err != nil {
				return s.refused(a, err)
			}
		}
		return half.setTime(a)
	})
	if err == nil {
		p.placed[s.full] = true
	}
	return err
}

// hardlink links to a file or a link of this tar only: another one's mode and contents are none of its business.
func (p *placer) hardlink(s spot, e entry) error {
	target := strings.Join(e.target, "/")
	if !p.placed[target] || target == s.full {
		return fmt.Errorf("the entry %q is a hard link to %q, which is no file of this copy", e.Name, e.Linkname)
	}
	// The folder of the entry has to stay open while that of its target is looked for.
	here, err := openAt(s.parent, ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return call("open", s.shown, err)
	}
	defer here.Close()
	s.parent = here
	t, err := p.spot(e.target)
	if err != nil {
		return err
	}
	err = s.replace(func(half spot) error {
		// Without AT_SYMLINK_FOLLOW a link in the target's place is linked itself: link(2).
		return call("link", s.shown, unix.Linkat(int(t.parent.Fd()), t.name, int(half.parent.Fd()), half.name, 0))
	})
	if err == nil {
		p.placed[s.full] = true
	}
	return err
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
		return call("chmod", s.shown, err)
	}
	return s.setTime(a)
}

// refused words why a file can't be had by its owner.
func (s spot) refused(a attributes, err error) error {
	if errors.Is(err, unix.EINVAL) { // an id that is not mapped, user_namespaces(7)
		return fmt.Errorf("%q belongs to %d:%d, and there are no such ids here", s.shown, a.uid, a.gid)
	}
	return call("chown", s.shown, err)
}

func (s spot) setTime(a attributes) error {
	mtime, err := unix.TimeToTimespec(a.mtime)
	if err == nil {
		times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
		err = unix.UtimesNanoAt(int(s.parent.Fd()), s.name, times, unix.AT_SYMLINK_NOFOLLOW)
	}
	return call("utimensat", s.shown, err)
}

// finish dresses the folders, the deepest first: one that is not writable or searchable any more is not
// needed any more either. One that can't be dressed does not keep the others from it.
func (p *placer) finish() error {
	var first error
	for n := len(p.folders) - 1; n >= 0; n-- {
		if err := p.dressFolder(p.folders[n]); first == nil {
			first = err
		}
	}
	return first
}

func (p *placer) dressFolder(folder made) error {
	s, err := p.spot(folder.parts)
	if err != nil {
		return err
	}
	f, err := openAt(s.parent, s.name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return call("open", s.shown, err)
	}
	defer f.Close()
	return p.dress(f, s, folder.attributes)
}
