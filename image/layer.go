package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// LayerPath is where a layer lies unpacked, for pods with the ids that are called mapName.
func (s *Store) LayerPath(mapName string, layer Layer) string {
	return s.path("layers", mapName, hexOf(layer.DiffID))
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

// Commit puts the layer in its place, once it is on the disk: else its name may outlive a power failure, and the files
// not.
func (n *NewLayer) Commit() error {
	defer n.end()
	err := syncAll(filepath.Dir(n.path)) // the layer's own folder may be closed to us
	if err == nil {
		err = os.Rename(n.Dir, n.path)
	}
	if err != nil {
		return errors.Join(err, n.remove(n.Dir))
	}
	return nil
}

// syncAll waits until all that was written to the file system of a folder is on the disk: syncfs(2), which tells of
// errors since Linux 5.8.
func syncAll(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err = unix.Syncfs(int(f.Fd())); err != nil {
		return os.NewSyscallError("syncfs "+dir, err)
	}
	return nil
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
