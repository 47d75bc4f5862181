package image

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of a file in a layer: nothing in there is trusted.
const maxFile = 1 << 20

// maxLinks is how many symbolic links are followed: as many as the kernel does, path_resolution(7).
const maxLinks = 40

// found is a path of an overlay: which of its layers have it. Of folders there may be many, the highest last.
type found struct {
	layers []int // descriptors, O_PATH
	from   []int // and which of all layers each is of
	stat   unix.Stat_t
	link   string
}

func (f *found) close() {
	for _, fd := range f.layers {
		unix.Close(fd)
	}
}

// LookUp reads a regular file as an overlay of these folders shows it, the highest last. It goes part by part: no link
// leads out of the folders.
func LookUp(layers []string, name string) (string, error) {
	f, err := walk(layers, name)
	if err != nil {
		return "", err
	}
	defer f.close()
	if f.stat.Mode&unix.S_IFMT != unix.S_IFREG || f.stat.Size > maxFile {
		return "", fs.ErrInvalid
	}
	// Who has a lease on it is not waited for, fcntl(2): F_SETLEASE.
	file, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(f.layers[0]), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text := make([]byte, f.stat.Size)
	n, _ := file.ReadAt(text, 0)
	return string(text[:n]), nil
}

// OpenIn opens a path, O_PATH, as an overlay of these folders shows it, the highest last.
func OpenIn(layers []string, name string) (*os.File, error) {
	f, err := walk(layers, name)
	if err != nil {
		return nil, err
	}
	top := len(f.layers) - 1
	file := os.NewFile(uintptr(f.layers[top]), name)
	f.layers = f.layers[:top]
	f.close()
	return file, nil
}

// StatIn tells the mode and the owner of a path as an overlay of these folders shows it, the highest last.
func StatIn(layers []string, name string) (mode, uid, gid uint32, err error) {
	f, err := walk(layers, name)
	if err != nil {
		return 0, 0, 0, err
	}
	f.close()
	return f.stat.Mode, f.stat.Uid, f.stat.Gid, nil
}

// walk finds a path, following links as if the overlay were the root.
func walk(layers []string, name string) (*found, error) {
	parts := split(name)
	var at []*found // from the root to where we are
	defer func() {
		for _, f := range at {
			f.close()
		}
	}()
	root, err := openLayers(layers)
	if err != nil {
		return nil, err
	}
	at = append(at, root)
	for links := 0; len(parts) > 0; {
		part := parts[0]
		parts = parts[1:]
		if part == ".." {
			if len(at) > 1 {
				at[len(at)-1].close()
				at = at[:len(at)-1]
			}
			continue
		}
		next, err := at[len(at)-1].enter(part)
		if err != nil {
			return nil, err
		}
		if next.link == "" {
			at = append(at, next)
			continue
		}
		next.close()
		if links++; links > maxLinks {
			return nil, unix.ELOOP
		}
		if strings.HasPrefix(next.link, "/") {
			for len(at) > 1 {
				at[len(at)-1].close()
				at = at[:len(at)-1]
			}
		}
		parts = append(split(next.link), parts...)
	}
	last := at[len(at)-1]
	at = at[:len(at)-1]
	return last, nil
}

func split(name string) []string {
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return parts
}

func openLayers(layers []string) (*found, error) {
	f := &found{}
	for i, layer := range layers {
		fd, err := unix.Open(layer, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			f.close()
			return nil, err
		}
		f.layers, f.from = append(f.layers, fd), append(f.from, i)
	}
	if len(f.layers) == 0 {
		return nil, fs.ErrNotExist
	}
	return f, unix.Fstat(f.layers[len(f.layers)-1], &f.stat)
}

// enter finds a name in a folder: the highest layer that has it decides what it is.
func (f *found) enter(name string) (*found, error) {
	next := &found{}
	for i := len(f.layers) - 1; i >= 0; i-- {
		fd, err := unix.Openat(f.layers[i], name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		var st unix.Stat_t
		if err == nil {
			err = unix.Fstat(fd, &st)
		}
		if err != nil {
			next.close()
			return nil, err
		}
		if len(next.layers) == 0 {
			next.stat = st
		}
		if isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR; len(next.layers) > 0 && !isDir || isWhiteout(&st) {
			unix.Close(fd)
			break // it hides what lies below
		}
		next.layers, next.from = append([]int{fd}, next.layers...), append([]int{f.from[i]}, next.from...)
		if st.Mode&unix.S_IFMT != unix.S_IFDIR || isOpaque(fd) {
			break
		}
	}
	if len(next.layers) == 0 {
		return nil, fs.ErrNotExist
	}
	if next.stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		buffer := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(next.layers[0], "", buffer)
		if err != nil {
			next.close()
			return nil, err
		}
		next.link = string(buffer[:n])
	}
	return next, nil
}

func isWhiteout(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

// isOpaque says whether a folder hides what the layers below have in its place, overlayfs.rst.
func isOpaque(folder int) bool {
	path := "/proc/self/fd/" + strconv.Itoa(folder)
	for _, name := range []string{"user.overlay.opaque", "trusted.overlay.opaque"} {
		var value [1]byte
		if n, err := unix.Getxattr(path, name, value[:]); err == nil && n == 1 && value[0] == 'y' {
			return true
		}
	}
	return false
}
