package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// LayerPath is where a layer lies unpacked, for pods with the ids that are called mapName.
func (s *Store) LayerPath(mapName string, layer Layer) string {
	return s.path("layers", mapName, strings.TrimPrefix(layer.DiffID, "sha256:"))
}

// HasLayer says whether it does.
func (s *Store) HasLayer(mapName string, layer Layer) bool {
	_, err := os.Lstat(s.LayerPath(mapName, layer))
	return err == nil
}

// NewLayer is a layer that is being unpacked, under a lock of its own.
type NewLayer struct {
	Dir    string // to unpack into; empty
	store  *Store
	path   string
	unlock func()
	remove func(dir string) error
}

// NewLayer begins a layer. Where somebody else is at it this waits; if the layer is there then, it returns nil. remove
// removes what a killed attempt left.
func (s *Store) NewLayer(mapName string, layer Layer, remove func(dir string) error) (*NewLayer, error) {
	path := s.LayerPath(mapName, layer)
	all := filepath.Dir(path)
	if err := os.MkdirAll(all, 0o700); err != nil {
		return nil, err
	}
	unlock, err := lockFile(filepath.Join(all, "lock-"+filepath.Base(path)))
	if err != nil {
		return nil, err
	}
	if s.HasLayer(mapName, layer) {
		unlock()
		return nil, nil
	}
	n := &NewLayer{Dir: filepath.Join(all, "new-"+filepath.Base(path)), store: s, path: path, unlock: unlock, remove: remove}
	if err = os.Mkdir(n.Dir, 0o755); errors.Is(err, fs.ErrExist) {
		if err = remove(n.Dir); err == nil {
			err = os.Mkdir(n.Dir, 0o755)
		}
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return n, nil
}

// Commit puts the layer in its place.
func (n *NewLayer) Commit() error {
	defer n.unlock()
	return os.Rename(n.Dir, n.path)
}

// Discard removes what was unpacked.
func (n *NewLayer) Discard() error {
	defer n.unlock()
	return n.remove(n.Dir)
}

// isLocked says whether somebody is at a layer.
func isLocked(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}

// sweepLayers removes unpacked layers that no image has, and what killed attempts left.
func (s *Store) sweepLayers(wanted map[string]bool, u *Use) error {
	maps, err := os.ReadDir(s.path("layers"))
	for _, m := range maps {
		all := s.path("layers", m.Name())
		entries, _ := os.ReadDir(all) // removed meanwhile
		for _, entry := range entries {
			name := entry.Name()
			if isHex(name) && !wanted[name] && !u.Layers[filepath.Join(all, name)] {
				gone := filepath.Join(all, "gone-"+name) // in one step: half a layer must not look whole
				if os.Rename(filepath.Join(all, name), gone) == nil {
					err = errors.Join(err, u.Remove(gone))
				}
			} else if strings.HasPrefix(name, "gone-") {
				err = errors.Join(err, u.Remove(filepath.Join(all, name)))
			} else if hex, ok := strings.CutPrefix(name, "new-"); ok && !isLocked(filepath.Join(all, "lock-"+hex)) {
				err = errors.Join(err, u.Remove(filepath.Join(all, name)))
			}
		}
	}
	return err
}
