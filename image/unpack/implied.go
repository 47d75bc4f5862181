package unpack

import (
	"archive/tar"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxImplied is how long the names of all folders may be that are only implied; those beyond are as they come.
const maxImplied = 4 << 20

// implied are the folders that entries lie in and that are none themselves, so far: Apply makes them.
type implied struct {
	names  map[string]bool
	length int
	parent string // of the last entry
}

// noteImplied looks which folders have to be made for an entry.
func (u *unpacking) noteImplied(h *tar.Header) {
	name := path.Clean("/" + h.Name)
	if h.Typeflag == tar.TypeDir {
		delete(u.implied.names, name)
	}
	parent := path.Dir(name)
	if parent == u.implied.parent {
		return
	}
	u.implied.parent = parent
	for ; parent != "/" && !u.implied.names[parent] && u.implied.length < maxImplied; parent = path.Dir(parent) {
		if fd, err := u.openDir(parent); err == nil {
			_ = unix.Close(fd)
			return
		}
		if u.implied.names == nil {
			u.implied.names = map[string]bool{}
		}
		u.implied.names[strings.Clone(parent)] = true
		u.implied.length += len(parent)
	}
}

// impliedNames are the names of those folders; the root is one, where the layer does not speak of it.
func (u *unpacking) impliedNames() []string {
	names := slices.Sorted(maps.Keys(u.implied.names))
	if u.rootDir == nil {
		names = slices.Insert(names, 0, "/")
	}
	return names
}
