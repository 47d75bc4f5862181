package unpack

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// The names that stand for what is gone, OCI image-spec "layer.md".
const (
	whiteoutPrefix = ".wh."
	metaPrefix     = ".wh..wh."
	opaque         = ".wh..wh..opq"
)

// maxWhiteouts is how long all the names of whiteouts may be, which are kept until the end.
const maxWhiteouts = 16 << 20

// opaqueNames are what overlayfs takes for "nothing of the layers below"; the second needs the mount option userxattr.
var opaqueNames = []string{"trusted.overlay.opaque", "user.overlay.opaque"}

// whiteouts are made at the end. They are about the layers below only: what this layer has by the same name,
// before or after, stays, and a device in its place would be in the way.
type whiteouts struct {
	names  []string
	length int
}

func (w *whiteouts) add(name string) error {
	if w.length += len(name) + 16; w.length > maxWhiteouts {
		return fmt.Errorf("the layer removes too many files: %w", errLimit)
	}
	w.names = append(w.names, strings.Clone(name))
	return nil
}

func (u *unpacking) makeWhiteouts() error {
	for _, name := range u.white.names {
		if err := u.makeWhiteout(name); err != nil {
			return &os.PathError{Op: "whiteout", Path: name, Err: err}
		}
	}
	return nil
}

func (u *unpacking) makeWhiteout(name string) error {
	name = path.Clean("/" + name)
	gone := strings.TrimPrefix(path.Base(name), whiteoutPrefix)
	dir, err := u.openDir(path.Dir(name))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil // replaced meanwhile by what hides all below it
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }()
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	// Allowed in a user namespace since Linux 5.8, as no other device is.
	err = unix.Mknodat(dir, gone, unix.S_IFCHR, 0)
	if err == nil {
		return setMtime(dir, st.Mtim)
	}
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := unix.Fstatat(dir, gone, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	// A directory of the same name: nothing of the one below is to show through.
	return u.setOpaque(path.Join(path.Dir(name), gone))
}

// setOpaque lets nothing of the layers below be seen in a directory of the root.
func (u *unpacking) setOpaque(name string) error {
	// fsetxattr(2) refuses descriptors that are O_PATH.
	dir, err := u.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer func() { _ = unix.Close(dir) }()
	for _, xattr := range opaqueNames {
		if err = unix.Fsetxattr(dir, xattr, []byte("y"), 0); err == nil {
			return nil
		}
	}
	return &os.PathError{Op: "setxattr " + opaqueNames[1] + " of", Path: name, Err: err}
}
