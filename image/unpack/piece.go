package unpack

import (
	"archive/tar"
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// piece is what is to be remembered of a piece: Apply sets the times of the directories that are entries in it,
// but also writes into some that were entries in an earlier one.
type piece struct {
	entries int
	bytes   int // of their names and attributes
	number  int
	parent  string // of the last entry
	times   map[string]unix.Timespec
	folders map[string]*tar.Header // Apply sets their times at the end of the piece, by their names
}

const (
	// pieceEntries and pieceBytes are how much Apply gets at once: it keeps the paths of all, and the headers of
	// directories.
	pieceEntries = 16384
	pieceBytes   = 4 << 20

	paxXattr  = "SCHILY.xattr."
	paxSparse = "GNU.sparse."
)

func (p *piece) isFull() bool { return p.entries >= pieceEntries || p.bytes >= pieceBytes }

func (p *piece) add(h *tar.Header) {
	p.entries++
	p.bytes += len(h.Name) + len(h.Linkname)
	for key, value := range h.PAXRecords {
		p.bytes += len(key) + len(value)
	}
}

// compact leaves of a header what is of use, in memory of its own: each string that archive/tar takes from PAX
// records keeps all of them, which may be a megabyte.
func compact(h *tar.Header) {
	h.Uname, h.Gname = "", "" // owners go by number
	if len(h.PAXRecords) == 0 {
		return
	}
	h.Name, h.Linkname = strings.Clone(h.Name), strings.Clone(h.Linkname)
	records := map[string]string{}
	for key, value := range h.PAXRecords {
		switch {
		case strings.HasPrefix(key, paxXattr):
			records[strings.Clone(key)] = strings.Clone(value)
		case strings.HasPrefix(key, paxSparse):
			records[paxSparse] = "" // isSparse; where the holes are has been read already
		}
	}
	h.PAXRecords = records
	h.Xattrs = nil //lint:ignore SA1019 archive/tar fills it as well, with the same strings
}

// saveTimes keeps the time of the entry's parent, if an earlier piece has made that.
func (u *unpacking) saveTimes(h *tar.Header) error {
	if u.piece.number == 1 {
		return nil
	}
	if h.Typeflag == tar.TypeDir {
		delete(u.piece.times, path.Clean("/"+h.Name))
		u.piece.parent = "" // its own time is not that of the entry any more once it is written into
	}
	parent := path.Dir(path.Clean("/" + h.Name))
	if _, saved := u.piece.times[parent]; saved || parent == u.piece.parent {
		return nil
	}
	u.piece.parent = parent
	dir, err := u.openDir(parent)
	if err != nil {
		return nil // it is still to be made: Apply says so if it can't
	}
	defer func() { _ = unix.Close(dir) }()
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return &os.PathError{Op: "stat", Path: parent, Err: err}
	}
	if u.piece.times == nil {
		u.piece.times = map[string]unix.Timespec{}
	}
	u.piece.times[parent] = st.Mtim
	return nil
}

// noteFolder keeps Apply from looking at its end for folders that something else has taken the place of.
func (u *unpacking) noteFolder(h *tar.Header) {
	name := path.Clean("/" + h.Name)
	if h.Typeflag == tar.TypeDir {
		if u.piece.folders == nil {
			u.piece.folders = map[string]*tar.Header{}
		}
		u.piece.folders[name] = h
		return
	}
	if u.piece.folders[name] == nil {
		return
	}
	for at, folder := range u.piece.folders {
		if at == name || strings.HasPrefix(at, name+"/") {
			folder.Name = "/" // whose times come last: finishRoot
			delete(u.piece.folders, at)
		}
	}
}

func (u *unpacking) restoreTimes() error {
	for name, mtime := range u.piece.times {
		dir, err := u.openDir(name)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue // replaced meanwhile
		}
		if err != nil {
			return &os.PathError{Op: "open", Path: name, Err: err}
		}
		err = setMtime(dir, mtime)
		_ = unix.Close(dir)
		if err != nil {
			return &os.PathError{Op: "set times of", Path: name, Err: err}
		}
	}
	return nil
}

func setMtime(dir int, mtime unix.Timespec) error {
	return unix.UtimesNanoAt(dir, ".", []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}, 0)
}
