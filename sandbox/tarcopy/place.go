package tarcopy

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options say how Place unpacks.
type Options struct {
	Owners   bool  // chown to the tar's numbers, and keep setuid and setgid; else files are the caller's
	MaxBytes int64 // of the contents, and 512 for each entry; 0: no limit
}

// Place unpacks a tar into the folder dir below root, which exists, as Target.Place does.
func Place(root *os.Root, dir, rename string, r io.Reader, o Options) error {
	if rename != "" && !component(rename) {
		return fmt.Errorf("%q is no name that a copy can have", rename)
	}
	found, info, err := resolve(root, dir, true)
	switch {
	case err != nil:
		return err
	case info == nil:
		return fmt.Errorf("no folder %q", dir)
	case !info.IsDir():
		return fmt.Errorf("%q is not a folder", dir)
	}
	t, err := openTarget(root, found, rename, dir)
	if err != nil {
		return err
	}
	defer t.Close()
	return t.Place(r, o)
}

// Place unpacks a tar into the target's folder. The first component of every entry is replaced by Rename, unless that is
// ""; "." puts the contents of the tar's folder into the folder itself.
//
// The tar isn't trusted. Nothing is written outside of the folder, nor through a link, whether the tar made it or
// it was there. Files and links that are there are replaced, at once and by whole ones; folders are merged and
// keep their mode; a folder in a file's place, or a file in a folder's, is an error, as is whatever is no file,
// folder or link. What was unpacked before an error stays.
func (t *Target) Place(r io.Reader, o Options) error {
	p := &placer{dir: t.shown, top: t.folder, parent: t.folder, options: o, placed: map[string]bool{}, rest: math.MaxInt64}
	if o.MaxBytes > 0 {
		p.rest = o.MaxBytes
	}
	defer p.leave()
	err := p.all(tar.NewReader(r), t.Rename)
	if finishErr := p.finish(); err == nil { // after an error as well: nobody would give the folders their modes later
		err = finishErr
	}
	return err
}

type placer struct {
	dir        string
	top        *os.File
	parent     *os.File // the folder that was used last, and its name
	parentName string
	options    Options
	rest       int64           // bytes that may still come
	placed     map[string]bool // files and links of this tar: what its hard links may mean
	buffer     []byte
	folders    []made
}

// A spot is where an entry goes: a name, one component, in an open folder.
type spot struct {
	parent *os.File
	name   string
	full   string // below the top
	shown  string // in words: with the top, where that has an absolute name
}

var placers = map[byte]func(*placer, spot, entry) error{
	tar.TypeReg:       (*placer).file,
	tar.TypeGNUSparse: (*placer).file,
	tar.TypeDir:       (*placer).folder,
	gnuFolder:         (*placer).folder,
	tar.TypeSymlink:   (*placer).symlink,
	tar.TypeLink:      (*placer).hardlink,
}

// Kinds of entries that GNU tar makes, "Basic Tar Format" in its manual: a folder with the names in it, of an incremental
// backup, and the label of a volume.
const (
	gnuFolder = 'D'
	gnuLabel  = 'V'
)

// An entry is a tar's header, its contents, and the names in it as they are below the top.
type entry struct {
	*tar.Header
	contents io.Reader
	target   []string // of a hard link
}

// ErrNoTar is what Place says of what does not begin as a tar does.
var ErrNoTar = errors.New("this is no tar, or a compressed one")

func (p *placer) all(t *tar.Reader, rename string) error {
	for first := true; ; first = false {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if first && (errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF)) {
			return ErrNoTar
		}
		if err != nil {
			return fmt.Errorf("read the tar: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader || h.Typeflag == gnuLabel {
			continue
		}
		if err := p.one(entry{Header: h, contents: t}, rename); err != nil {
			return err
		}
	}
}

func (p *placer) one(e entry, rename string) error {
	parts, err := inside(e.Name, rename)
	if err != nil {
		return err
	}
	place := placers[e.Typeflag]
	if place == nil {
		return fmt.Errorf("the entry %q is no file, folder or link", e.Name)
	}
	// A sparse entry is short in the tar and long on the disk: its size is what counts.
	const block = 512
	if e.Size > p.rest-block {
		return fmt.Errorf("the copy is larger than %d bytes", p.options.MaxBytes)
	}
	p.rest -= e.Size + block
	if e.Typeflag == tar.TypeLink {
		if e.target, err = inside(e.Linkname, rename); err != nil {
			return err
		}
	}
	if len(parts) == 0 {
		if e.Typeflag == tar.TypeDir || e.Typeflag == gnuFolder {
			return nil // the top itself, which is there
		}
		return fmt.Errorf("the entry %q is no folder, and would take a folder's place", e.Name)
	}
	s, err := p.spot(parts)
	if err != nil {
		return err
	}
	return place(p, s, e)
}

// inside are the components of an entry's name, which do not lead out, the first of them replaced by rename.
func inside(name, rename string) ([]string, error) {
	switch {
	case name == "" || strings.Contains(name, "\x00"):
		return nil, fmt.Errorf("the entry %q has no proper name", name)
	case len(name)+len(rename) >= maxName:
		return nil, fmt.Errorf("a name is too long: %q…", name[:min(60, len(name))])
	case strings.HasPrefix(name, "/"):
		return nil, fmt.Errorf("the entry %q has an absolute name", name)
	}
	first, rest, _ := strings.Cut(name, "/")
	if first == ".." {
		return nil, fmt.Errorf("the entry %q leads out of the copy", name)
	}
	if rename != "" {
		first = rename
	}
	parts := meaningful(first + "/" + rest)
	for _, part := range parts {
		if part == ".." {
			return nil, fmt.Errorf("the entry %q leads out of the copy", name)
		}
	}
	return parts, nil
}

// named is a spot whose folder is not open yet.
func (p *placer) named(parts []string) spot {
	s := spot{name: parts[len(parts)-1], full: strings.Join(parts, "/")}
	s.shown = s.full
	if strings.HasPrefix(p.dir, "/") {
		s.shown = path.Join(p.dir, s.full)
	}
	return s
}

// spot opens the folder that an entry goes into, so that no link is followed. What is missing is made, component by
// component.
func (p *placer) spot(parts []string) (spot, error) {
	last := len(parts) - 1
	s := p.named(parts)
	parentName := strings.Join(parts[:last], "/")
	if parentName == p.parentName {
		s.parent = p.parent
		return s, nil
	}
	p.leave()
	if folder, err := openBelow(p.top, parentName, unix.O_PATH); err == nil { // at once: it may be a thousand folders deep
		p.use(folder)
		p.parentName, s.parent = parentName, folder
		return s, nil
	}
	for n := range parts[:last] {
		above := p.named(parts[:n+1])
		above.parent = p.parent
		next, err := p.enter(above)
		if err != nil {
			p.leave()
			return s, err
		}
		p.use(next)
	}
	p.parentName = parentName
	s.parent = p.parent
	return s, nil
}

func (p *placer) use(folder *os.File) {
	if p.parent != p.top {
		p.parent.Close()
	}
	p.parent = folder
}

func (p *placer) leave() {
	p.use(p.top)
	p.parentName = ""
}

func (p *placer) enter(s spot) (*os.File, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY
	f, err := openAt(s.parent, s.name, flags, 0)
	if errors.Is(err, unix.ENOENT) {
		if err := unix.Mkdirat(int(s.parent.Fd()), s.name, 0o755); err != nil {
			return nil, call("mkdir", s.shown, err)
		}
		f, err = openAt(s.parent, s.name, flags, 0)
	}
	if st, statErr := statAt(s.parent, s.name); err != nil && statErr == nil {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
		case unix.S_IFLNK:
			return nil, fmt.Errorf("%q is a symbolic link, and nothing is written through it", s.shown)
		default:
			return nil, fmt.Errorf("%q is not a folder", s.shown)
		}
	}
	if err != nil {
		return nil, call("open", s.shown, err)
	}
	return f, nil
}

// A made folder gets its mode, owner and time in the end: until then it must be writable, and what is
// written into it changes its time.
type made struct {
	parts []string
	attributes
}

type attributes struct {
	mode     uint32
	uid, gid int
	mtime    time.Time
}
