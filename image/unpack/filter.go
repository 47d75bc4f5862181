package unpack

import (
	"archive/tar"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/podsh/podsh/image"
	"golang.org/x/sys/unix"
)

const (
	setuid = 0o4000
	setgid = 0o2000
)

// dataless are the types whose size says nothing of the stream: archive/tar, isHeaderOnlyType.
var dataless = map[byte]bool{
	tar.TypeLink: true, tar.TypeSymlink: true, tar.TypeDir: true, tar.TypeFifo: true, tar.TypeChar: true, tar.TypeBlock: true,
}

// asRegular are the types that are regular files to everyone but Apply.
var asRegular = map[byte]bool{tar.TypeCont: true, tar.TypeGNUSparse: true}

// filter is asked by Apply about each entry before its name is resolved, and may change it.
func (u *unpacking) filter(h *tar.Header) (bool, error) {
	compact(h)
	u.entry = h
	u.removeSparse()
	u.sparse.next = isSparse(h)
	if asRegular[h.Typeflag] {
		h.Typeflag = tar.TypeReg
	}
	switch {
	case u.sparse.next:
		u.stream.at(unknown)
	case dataless[h.Typeflag]:
		h.Size = 0
		u.stream.at(0)
	default:
		u.stream.at(h.Size)
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return false, nil
	}
	if err := u.count(h); err != nil {
		return false, err
	}
	if len(h.Name) >= unix.PathMax || len(h.Linkname) >= unix.PathMax {
		return false, fmt.Errorf("unpack layer %s: the name %s is too long: %w", u.Layer.Digest, quote(h.Name), unix.ENAMETOOLONG)
	}
	return u.accept(h)
}

// count holds the entry against the limits, before it costs anything.
func (u *unpacking) count(h *tar.Header) error {
	u.entries++
	if most := u.Limits.Entries; most > 0 && u.entries > most {
		return image.Fail(errLimit, "allow more, if the image is to be trusted",
			"layer %s has more than %d entries", u.Layer.Digest, most)
	}
	// What is left is compared, not the sum: a size is up to 2⁶³-1.
	if most := u.Limits.Bytes; most > 0 && h.Size > most-u.bytes {
		return tooManyBytes(u.Layer, most)
	}
	u.bytes += h.Size
	u.piece.add(h)
	u.stream.endPiece = u.piece.isFull()
	return nil
}

func tooManyBytes(layer *image.Layer, most int64) error {
	return image.Fail(errLimit, "allow more, if the image is to be trusted",
		"layer %s is of more than %d bytes unpacked", layer.Digest, most)
}

// accept tells whether Apply is to write the entry, and makes it what it may be here.
func (u *unpacking) accept(h *tar.Header) (bool, error) {
	switch h.Typeflag {
	case tar.TypeChar, tar.TypeBlock:
		// Refused in user namespaces, mknod(2); of no use in a pod, elsewhere. Those of /dev nobody misses: a pod has its own.
		if !strings.HasPrefix(path.Clean("/"+h.Name), "/dev/") {
			u.warnings.devices.add(h.Name)
		}
		return false, nil
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeFifo:
	default:
		return false, fmt.Errorf("unpack layer %s: %s is of type %q, which is unknown", u.Layer.Digest, quote(h.Name), h.Typeflag)
	}
	if isAufs(h.Name) {
		return false, nil
	}
	if u.Squash {
		u.squash(h)
	}
	u.filterXattrs(h)
	if name := path.Clean("/" + h.Name); name == "/" {
		if h.Typeflag == tar.TypeDir {
			u.rootDir = h
		}
		return false, nil
	}
	u.noteImplied(h)
	u.noteFolder(h)
	if err := u.saveTimes(h); err != nil {
		return false, err
	}
	done, err := u.writeFile(h)
	return !done, err
}

// isAufs tells whether a name is of aufs' own, as ".wh..wh.plnk/1.2": old images have them.
func isAufs(name string) bool {
	if !strings.Contains(name, metaPrefix) {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, metaPrefix) && part != opaque {
			return true
		}
	}
	return false
}

// squash makes root the owner. A program that ran as another would now run as root: not by these bits.
func (u *unpacking) squash(h *tar.Header) {
	if h.Uid != 0 {
		h.Mode &^= setuid
	}
	if h.Gid != 0 {
		h.Mode &^= setgid
	}
	if h.Uid != 0 || h.Gid != 0 {
		u.warnings.squashed.add(h.Name)
	}
	h.Uid, h.Gid = 0, 0
}

// xattrs is what is known of the folder: whether it keeps users' attributes.
type xattrs struct{ probed, refused bool }

// ofTheHost are attributes that mean something only where an image was made, and that nobody misses elsewhere.
var ofTheHost = []string{"security.selinux", "security.ima", "security.evm", "trusted.overlay.", "user.overlay.", "com.apple."}

// filterXattrs leaves the attributes that an image may have.
func (u *unpacking) filterXattrs(h *tar.Header) {
	if h.Typeflag == tar.TypeLink {
		return // those of its target: place
	}
	maps.DeleteFunc(h.PAXRecords, func(key, _ string) bool {
		name, is := strings.CutPrefix(key, paxXattr)
		if !is || u.keepXattr(h, name) {
			return false
		}
		if !slices.ContainsFunc(ofTheHost, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			u.warnings.xattrs.add(h.Name + ": " + name)
		}
		return true
	})
}

func (u *unpacking) keepXattr(h *tar.Header, name string) bool {
	if name == "security.capability" {
		return h.Typeflag == tar.TypeReg
	}
	// user.overlay.* is what the layers say to the kernel, not what an image says: overlayfs.rst, "userxattr".
	if !strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "user.overlay.") {
		return false
	}
	// Only files and directories have users' attributes: xattr(7).
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
		return false
	}
	if !u.xattrs.probed {
		const probe = "user.podsh"
		u.xattrs.probed, u.xattrs.refused = true, unix.Setxattr(u.root, probe, nil, 0) != nil
		_ = unix.Removexattr(u.root, probe)
	}
	return !u.xattrs.refused
}

// keptXattrs are the attributes that filterXattrs left.
func keptXattrs(h *tar.Header) map[string]string {
	kept := map[string]string{}
	for key, value := range h.PAXRecords {
		if name, is := strings.CutPrefix(key, paxXattr); is {
			kept[name] = value
		}
	}
	return kept
}
