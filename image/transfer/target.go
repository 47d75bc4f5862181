package transfer

import (
	"archive/tar"
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
)

// umask is what new files of this process are denied. There is no way to read it but to set it: umask(2).
func umask() os.FileMode {
	mask := unix.Umask(0o077)
	unix.Umask(mask)
	return os.FileMode(mask)
}

// besides is a new file that replaces another when it is whole.
func besides(path string) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-")
	if err != nil {
		return nil, &diskError{err}
	}
	if err := f.Chmod(0o644 &^ umask()); err != nil {
		os.Remove(f.Name())
		f.Close()
		return nil, &diskError{err}
	}
	return f, nil
}

// targetFolder is an OCI image layout in a folder, maybe one with images.
type targetFolder struct {
	path string
	made bool // by us
}

func openTargetFolder(path string) (target, error) {
	if path == "-" || path == "" {
		return nil, image.Fail(image.ErrInvalid, "name a folder, or write an oci-archive", "a folder can't be written to standard output")
	}
	t := &targetFolder{path: path}
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		t.made = true
	case err != nil:
		return nil, &diskError{err}
	case len(entries) > 0:
		if _, err := os.Stat(filepath.Join(path, "oci-layout")); err != nil {
			return nil, image.Fail(image.ErrInvalid, "name a new folder", "folder %q is not empty, and no OCI image layout", path)
		}
	}
	if err := os.MkdirAll(filepath.Join(path, "blobs", "sha256"), 0o755); err != nil {
		return nil, &diskError{err}
	}
	return t, nil
}

func (t *targetFolder) write(name string, size int64, r io.Reader) error {
	path := filepath.Join(t.path, filepath.FromSlash(name))
	if info, err := os.Stat(path); err == nil && info.Size() == size && filepath.Dir(name) == "blobs/sha256" {
		return nil // a blob of that name is that blob
	}
	f, err := besides(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = io.Copy(diskWriter{f}, r); err == nil {
		if err = os.Rename(f.Name(), path); err != nil {
			err = &diskError{err}
		}
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

func (t *targetFolder) index() ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(t.path, "index.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

func (t *targetFolder) commit() error { return nil } // index.json came last

func (t *targetFolder) discard() {
	if t.made {
		os.RemoveAll(t.path)
	}
}

// targetTar is an archive: a file that gets its name when it is whole, or a stream.
type targetTar struct {
	path string // "" where it is written as it comes
	file *os.File
	out  *bufio.Writer
	tar  *tar.Writer

	folders map[string]bool // that are in it: skopeo unpacks archives without them as root alone
}

func openTargetTar(path string) (target, error) {
	t := &targetTar{file: os.Stdout, folders: map[string]bool{}}
	if path != "-" {
		info, err := os.Stat(path)
		if err == nil && !info.Mode().IsRegular() { // a pipe, or /dev/null
			t.file, err = os.OpenFile(path, os.O_WRONLY, 0)
		} else {
			t.path = path
			t.file, err = besides(path)
		}
		if err != nil {
			return nil, &diskError{err}
		}
	}
	t.out = bufio.NewWriterSize(diskWriter{t.file}, pieceSize)
	t.tar = tar.NewWriter(t.out)
	return t, nil
}

// write adds a file. All are of the same time and nobody's, so that the same images make the same archive.
func (t *targetTar) write(name string, size int64, r io.Reader) error {
	for i, c := range name {
		if folder := name[:i+1]; c == '/' && !t.folders[folder] {
			t.folders[folder] = true
			if err := t.tar.WriteHeader(&tar.Header{Name: folder, Mode: 0o755, Typeflag: tar.TypeDir, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}); err != nil {
				return err
			}
		}
	}
	err := t.tar.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o644, Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
	if err == nil {
		_, err = io.Copy(t.tar, r)
	}
	return err
}

func (t *targetTar) index() ([]byte, error) { return nil, nil }

func (t *targetTar) commit() error {
	err := t.tar.Close()
	if err == nil {
		err = t.out.Flush()
	}
	if err != nil || t.path == "" {
		return err
	}
	if err = t.file.Close(); err == nil {
		err = os.Rename(t.file.Name(), t.path)
	}
	if err != nil {
		return &diskError{err}
	}
	return nil
}

func (t *targetTar) discard() {
	t.file.Close()
	if t.path != "" {
		os.Remove(t.file.Name())
	}
}
