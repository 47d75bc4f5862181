package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Use says what is in use, by containers, and how an unpacked layer is removed: its files may belong to ids that only a
// user namespace can remove.
type Use struct {
	Images map[string][]string // digests, and who uses them
	Layers map[string]bool     // paths of unpacked layers
	Remove func(dir string) error
}

// Usage looks what is in use now.
type Usage func() (*Use, error)

// Remove takes an image out of the index, and removes what no other one has of it.
func (s *Store) Remove(img *Image, usage Usage) error {
	err := s.change(func(all *index) error {
		all.Manifests = slices.DeleteFunc(all.Manifests, func(d Descriptor) bool { return d.identity() == img.Digest })
		return nil
	})
	if err != nil {
		return err
	}
	_, err = s.sweep(usage)
	return err
}

// Prune removes images that nothing uses: those without a name, or with all set all of them; those whose blobs are
// gone; and whatever no image has. It tells which images, and how many bytes of blobs.
func (s *Store) Prune(all bool, usage Usage) (removed []*Image, bytes int64, err error) {
	u, err := usage()
	if err != nil {
		return nil, 0, err
	}
	err = s.change(func(x *index) error {
		kept := map[string]bool{}
		for _, img := range s.images(x) {
			if (all || len(img.Names) == 0) && len(u.Images[img.Digest]) == 0 {
				removed = append(removed, img)
			} else {
				kept[img.Digest] = true
			}
		}
		x.Manifests = slices.DeleteFunc(x.Manifests, func(d Descriptor) bool { return !kept[d.identity()] })
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	bytes, err = s.sweep(usage)
	return removed, bytes, err
}

// maxPartial is how long a download that was broken off can be taken up.
const maxPartial = 24 * time.Hour

// sweep removes blobs and layers that no image has. Where somebody is about to have what nobody has yet, all stays:
// the next one removes it.
func (s *Store) sweep(usage Usage) (bytes int64, err error) {
	unlock, busy, err := lockFile(s.path("pulling"), unix.LOCK_EX|unix.LOCK_NB)
	if busy || err != nil {
		return 0, err
	}
	defer unlock()
	u, err := usage() // under the lock, which a container in the making holds, too
	if err != nil {
		return 0, err
	}
	all, err := s.readIndex()
	if err != nil {
		return 0, err
	}
	blobs, layers := map[string]bool{}, map[string]bool{}
	for _, d := range all.Manifests {
		blobs[hexOf(d.Digest)] = true
	}
	for _, img := range s.images(all) {
		blobs[hexOf(img.ID)] = true
		for _, layer := range img.Layers {
			blobs[hexOf(layer.Digest)] = true
			layers[hexOf(layer.DiffID)] = true
		}
	}
	for _, algorithm := range []string{"sha256", ownDigest} {
		bytes += sweepFiles(s.path("blobs", algorithm), func(name string, _ os.FileInfo) bool { return !blobs[name] })
	}
	bytes += sweepFiles(s.path("partial"), func(name string, info os.FileInfo) bool {
		return !isHex(name) || time.Since(info.ModTime()) > maxPartial // what has no digest yet can't be taken up
	})
	bytes += sweepFiles(s.Path, func(name string, info os.FileInfo) bool { // of writeWhole, killed
		return strings.Contains(name, ".new-") && time.Since(info.ModTime()) > maxPartial
	})
	return bytes, s.sweepLayers(layers, u)
}

// sweepFiles removes the files of a folder that are unwanted.
func sweepFiles(dir string, unwanted func(name string, info os.FileInfo) bool) (bytes int64) {
	entries, _ := os.ReadDir(dir) // it may not be there
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || !unwanted(entry.Name(), info) {
			continue
		}
		if os.Remove(filepath.Join(dir, entry.Name())) == nil {
			bytes += info.Size()
		}
	}
	return bytes
}

// sweepLayers removes unpacked layers that no image has, and what killed attempts left.
func (s *Store) sweepLayers(wanted map[string]bool, u *Use) error {
	maps, err := os.ReadDir(s.path("layers"))
	for _, m := range maps {
		all := s.path("layers", m.Name())
		entries, _ := os.ReadDir(all) // removed meanwhile
		for _, entry := range entries {
			name := entry.Name()
			path := filepath.Join(all, name)
			if isHex(name) && !wanted[name] && !u.Layers[path] {
				err = errors.Join(err, s.sweepLayer(all, name, name, u))
			} else if hex, ok := strings.CutPrefix(name, "implied-"); ok && !wanted[hex] && !u.Layers[filepath.Join(all, hex)] {
				err = errors.Join(err, s.sweepImplied(all, hex))
			} else if hex, ok := strings.CutPrefix(name, "new-"); ok {
				err = errors.Join(err, s.sweepLayer(all, hex, name, u))
			} else if strings.HasPrefix(name, "gone-") {
				err = errors.Join(err, u.Remove(path))
			}
		}
	}
	return err
}

// sweepImplied removes what was written down of a layer that is gone, unless somebody is at it.
func (s *Store) sweepImplied(all, hex string) error {
	lock := filepath.Join(all, "lock-"+hex)
	unlock, busy, err := lockFile(lock, unix.LOCK_EX|unix.LOCK_NB)
	if busy || err != nil {
		return err
	}
	defer unlock()
	defer os.Remove(lock)
	if err := os.Remove(filepath.Join(all, "implied-"+hex)); !isMissing(err) {
		return err
	}
	return nil
}

// sweepLayer removes a layer, or what was to become one, unless somebody is at it.
func (s *Store) sweepLayer(all, hex, name string, u *Use) error {
	lock := filepath.Join(all, "lock-"+hex)
	unlock, busy, err := lockFile(lock, unix.LOCK_EX|unix.LOCK_NB)
	if busy || err != nil {
		return err
	}
	defer unlock()
	defer os.Remove(lock)
	// In one step, for half a layer must not look whole.
	for n := 0; ; n++ {
		gone := filepath.Join(all, fmt.Sprintf("gone-%s-%d", hex, n))
		err := os.Rename(filepath.Join(all, name), gone)
		switch {
		case err == nil:
			return u.Remove(gone)
		case isMissing(err):
			return nil
		case !errors.Is(err, os.ErrExist) || n > 1000: // ENOTEMPTY is one: a removal that was killed
			return err
		}
	}
}
