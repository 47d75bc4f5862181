package tarcopy

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Packed is what became of a Pack.
type Packed struct {
	Files int      // entries written
	Bytes int64    // of the files' contents
	Left  []string // names, as they would be in the tar, of what was left out: no file, folder or link
}

// Pack writes a tar of the file or folder name below root. Its entries are called base, or base/… . Links are
// packed as they are; name itself is followed only if it ends in "/." or "/". FIFOs, devices, sockets and the
// kernel's own file systems below name are left out. What vanishes meanwhile is skipped; a file that shrinks
// is padded with zeros, one that grows is cut.
func Pack(root *os.Root, name, base string, w io.Writer) (Packed, error) {
	if !component(base) {
		return Packed{}, fmt.Errorf("%q is no name that a copy can have", base)
	}
	found, info, err := resolve(root, name, follows(name))
	switch {
	case err != nil:
		return Packed{}, err
	case info == nil:
		return Packed{}, fmt.Errorf("no file or folder %q", name)
	case follows(name) && !info.IsDir():
		return Packed{}, fmt.Errorf("%q is not a folder", name)
	}
	// "." of a folder, and not its name, since root has none.
	where, last := path.Split(found)
	if info.IsDir() {
		where, last = found, "."
	}
	where = path.Clean(where)
	parent, err := openFolder(root, where, where)
	if err != nil {
		return Packed{}, err
	}
	defer parent.Close()
	st, err := statAt(parent, last)
	if err != nil {
		return Packed{}, call("stat", name, err)
	}
	p := &packer{tar: tar.NewWriter(w), seen: map[inode]string{}}
	if err := p.pack(item{parent: parent, name: last, entry: base, device: st.Dev}); err != nil {
		return p.packed, err
	}
	return p.packed, p.tar.Close()
}

type inode struct{ device, number uint64 }

type packer struct {
	tar    *tar.Writer
	seen   map[inode]string // files with more than one name, and the first that was packed
	packed Packed
}

// An item is something to pack: where it is, what it is called in the tar, and the device of the folder it
// is in.
type item struct {
	parent *os.File
	name   string
	entry  string
	device uint64
}

var packers = map[uint32]func(*packer, item, unix.Stat_t) error{
	unix.S_IFREG: (*packer).file,
	unix.S_IFLNK: (*packer).link,
}

func init() {
	packers[unix.S_IFDIR] = (*packer).folder // it leads back to the table
}

func (p *packer) pack(i item) error {
	if len(i.entry) >= maxName {
		return fmt.Errorf("a name is too long: %q…", i.entry[:60])
	}
	st, err := statAt(i.parent, i.name)
	if vanished(err) {
		return nil
	}
	if err != nil {
		return call("stat", i.entry, err)
	}
	pack := packers[st.Mode&unix.S_IFMT]
	if pack == nil {
		p.packed.Left = append(p.packed.Left, i.entry)
		return nil
	}
	if err := pack(p, i, st); err != nil && !errors.Is(err, errVanished) {
		return err
	}
	return nil
}

var errVanished = errors.New("vanished")

// open opens an item, and looks at what has been opened, which need not be what was there before.
func (p *packer) open(i item, kind uint32, flags int) (*os.File, unix.Stat_t, error) {
	var st unix.Stat_t
	f, err := openAt(i.parent, i.name, flags, 0)
	if vanished(err) {
		return nil, st, errVanished
	}
	if err != nil {
		return nil, st, call("open", i.entry, err)
	}
	err = unix.Fstat(int(f.Fd()), &st)
	if err == nil && st.Mode&unix.S_IFMT == kind {
		return f, st, nil
	}
	f.Close()
	if err != nil {
		return nil, st, call("stat", i.entry, err)
	}
	return nil, st, errVanished
}

func (p *packer) file(i item, _ unix.Stat_t) error {
	f, st, err := p.open(i, unix.S_IFREG, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	id := inode{st.Dev, st.Ino}
	if first, ok := p.seen[id]; ok {
		h := header(i.entry, tar.TypeLink, st)
		h.Linkname = first
		return p.write(h)
	}
	h := header(i.entry, tar.TypeReg, st)
	h.Size = st.Size
	if err := p.write(h); err != nil {
		return err
	}
	if st.Nlink > 1 {
		p.seen[id] = i.entry
	}
	n, err := io.CopyN(p.tar, f, st.Size)
	if err == io.EOF { // it has shrunk
		_, err = io.CopyN(p.tar, zeros{}, st.Size-n)
	}
	p.packed.Bytes += st.Size
	return call("copy", i.entry, err)
}

func (p *packer) link(i item, st unix.Stat_t) error {
	target, err := readlinkAt(i.parent, i.name)
	if vanished(err) {
		return errVanished
	}
	if err != nil {
		return call("readlink", i.entry, err)
	}
	h := header(i.entry, tar.TypeSymlink, st)
	h.Linkname = target
	return p.write(h)
}

// The kernel's own file systems: what is in them is no file. /proc/kcore has 128 TiB.
var kernels = map[int64]bool{
	unix.PROC_SUPER_MAGIC:    true,
	unix.SYSFS_MAGIC:         true,
	unix.CGROUP_SUPER_MAGIC:  true,
	unix.CGROUP2_SUPER_MAGIC: true,
	unix.DEBUGFS_MAGIC:       true,
	unix.TRACEFS_MAGIC:       true,
	unix.SECURITYFS_MAGIC:    true,
	unix.BPF_FS_MAGIC:        true,
	unix.DEVPTS_SUPER_MAGIC:  true,
}

func (p *packer) folder(i item, _ unix.Stat_t) error {
	f, st, err := p.open(i, unix.S_IFDIR, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer f.Close()
	if st.Dev != i.device { // something is mounted here
		var fs unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &fs); err == nil && kernels[int64(fs.Type)] {
			p.packed.Left = append(p.packed.Left, i.entry)
			return nil
		}
	}
	names, err := f.Readdirnames(-1)
	if err != nil && !vanished(err) {
		return call("read", i.entry, err)
	}
	if err := p.write(header(i.entry+"/", tar.TypeDir, st)); err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		below := item{parent: f, name: name, entry: i.entry + "/" + name, device: st.Dev}
		if err := p.pack(below); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) write(h *tar.Header) error {
	if err := p.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("write the entry %q: %w", h.Name, err)
	}
	p.packed.Files++
	return nil
}

// header is by hand, since tar.FileInfoHeader looks up the owners' names, which are another's in a container.
func header(entry string, kind byte, st unix.Stat_t) *tar.Header {
	return &tar.Header{
		Typeflag: kind,
		Name:     entry,
		Mode:     int64(st.Mode & 0o7777),
		Uid:      int(st.Uid),
		Gid:      int(st.Gid),
		ModTime:  time.Unix(st.Mtim.Unix()),
		Format:   tar.FormatPAX, // for nanoseconds, and any length and number
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
