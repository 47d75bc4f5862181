package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Store is the folder with a user's images. It is an OCI image layout (image-spec, "image-layout.md"): skopeo, umoci
// and crane read it as well.
//
//	oci-layout, index.json      a descriptor for each name of an image, or one for an image without a name
//	blobs/sha256/HEX            manifests, configurations and layers, as they were transferred
//	partial/HEX                 blobs that are being downloaded
//	partial/blob-*, import-*    blobs that are being written
//	layers/MAP/HEX/             layers unpacked, by DiffID; MAP names the ids that their files belong to
//	layers/MAP/new-*, gone-*    those in the making, and on their way out
//	layers/MAP/implied-HEX      which of its folders a layer says nothing of (implied.go)
//	layers/MAP/lock-*           flock(2): held by whoever makes the layer
//	lock                        flock(2): held while index.json changes
//	pulling                     flock(2): held, shared, while blobs are there that no image has yet
type Store struct{ Path string }

// Open makes sure that the store is there.
func Open(path string) (*Store, error) {
	const hint = "set XDG_DATA_HOME to a folder on a disk, of your own"
	s := &Store{path}
	for _, dir := range []string{"", "blobs/sha256", "partial", "layers"} {
		if err := os.MkdirAll(s.path(dir), 0o700); err != nil {
			return nil, Fail(err, hint, "store of images: %v", err)
		}
		var st unix.Stat_t
		if err := unix.Stat(s.path(dir), &st); err != nil {
			return nil, Fail(err, hint, "store of images: stat %s: %v", s.path(dir), err)
		}
		if int(st.Uid) != os.Geteuid() {
			return nil, Fail(nil, hint, "store of images %q belongs to uid %d", s.path(dir), st.Uid)
		}
	}
	layout := s.path("oci-layout")
	if _, err := os.Lstat(layout); err != nil {
		if err := writeWhole(layout, []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
			return nil, Fail(err, hint, "store of images: %v", err)
		}
	}
	return s, nil
}

func (s *Store) path(elements ...string) string {
	return filepath.Join(append([]string{s.Path}, elements...)...)
}

// hexOf is a digest without its algorithm.
func hexOf(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return hex
}

// BlobPath is where a blob lies.
func (s *Store) BlobPath(digest string) string {
	algorithm, hex, _ := strings.Cut(digest, ":")
	return s.path("blobs", algorithm, hex)
}

// PartialPath is where a blob lies that is being downloaded.
func (s *Store) PartialPath(digest string) string {
	return s.path("partial", hexOf(digest))
}

// Partial is the folder for blobs that are being written.
func (s *Store) Partial() string { return s.path("partial") }

// writeWhole writes a file: all of it, or nothing.
func writeWhole(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync() // else the name may outlive a power failure, and the text not
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// lock takes the store's lock; the returned function gives it back, and so does the end of the process.
func (s *Store) lock() (unlock func(), err error) {
	unlock, _, err = lockFile(s.path("lock"), unix.LOCK_EX)
	return unlock, err
}

// Bringing says that blobs are brought in which no image has yet, or layers taken which no container has; call the
// function when one has them.
func (s *Store) Bringing() (done func(), err error) {
	done, _, err = lockFile(s.path("pulling"), unix.LOCK_SH)
	return done, err
}

// lockFile locks a file as flock(2) has it; busy is what LOCK_NB finds. Such a file may be removed by who has its lock.
func lockFile(path string, how int) (unlock func(), busy bool, err error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, false, err
		}
		for {
			if err = unix.Flock(int(f.Fd()), how); err != unix.EINTR {
				break
			}
		}
		if err != nil {
			f.Close()
			if err == unix.EWOULDBLOCK {
				return nil, true, nil
			}
			return nil, false, fmt.Errorf("flock %s: %w", path, err)
		}
		if isAt(f, path) {
			return func() { f.Close() }, false, nil
		}
		f.Close() // it was removed while we waited: others lock the new one
	}
}

// isAt says whether an open file still has its name.
func isAt(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(open, named)
}

// isMissing says whether an error is that there is nothing of the name.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
