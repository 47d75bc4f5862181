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
	path   string
	lock   string
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
	lock := filepath.Join(all, "lock-"+filepath.Base(path))
	unlock, _, err := lockFile(lock, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	if s.HasLayer(mapName, layer) {
		os.Remove(lock)
		unlock()
		return nil, nil
	}
	n := &NewLayer{Dir: filepath.Join(all, "new-"+filepath.Base(path)), path: path, lock: lock, unlock: unlock, remove: remove}
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
	defer n.end()
	return os.Rename(n.Dir, n.path)
}

// Discard removes what was unpacked.
func (n *NewLayer) Discard() error {
	defer n.end()
	return n.remove(n.Dir)
}

// end gives the lock back, and removes it: who waits for it looks whether it is still there.
func (n *NewLayer) end() {
	os.Remove(n.lock)
	n.unlock()
}
