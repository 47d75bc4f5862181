package transfer

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/image/compression"
)

// maxEntries is how many files an archive of images may have.
const maxEntries = 100_000

// archive is files in a tar.
type archive struct {
	tar     *os.File
	entries map[string]entry
}

type entry struct {
	offset, size int64
	link         string // an older docker writes links where images share a layer
}

// openArchive opens an archive of images, and finds out of what kind it is: docker's of today are both.
func openArchive(ctx context.Context, p *pulling, rest string) (source, error) {
	path, tag := rest, ""
	if rest != "-" {
		path, tag = splitTag(rest, func(info os.FileInfo) bool { return !info.IsDir() })
	}
	title := path
	if path == "-" {
		title = "standard input"
	}
	file, err := seekable(ctx, p.store, path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, image.Fail(err, "is the path right?", "no archive %q", path)
		}
		return nil, explainFile(title, err)
	}
	a := &archive{file, map[string]entry{}}
	if err := a.scan(ctx); err != nil {
		a.close()
		return nil, image.Fail(err, "`podsh image import` takes a root file system", "%q is no archive of images: %v", title, err)
	}
	if len(a.entries) == 0 {
		a.close()
		return nil, image.Fail(nil, "an image comes from podsh image save, docker save, podman save or skopeo copy", "%q is empty: there is no image in it", title)
	}
	l := layout{a, title, baseName(path), tag, p.wanted}
	if a.has("index.json") && a.has("oci-layout") {
		return &l, nil
	}
	if a.has("manifest.json") {
		return &dockerArchive{layout: l}, nil
	}
	a.close()
	return nil, image.Fail(nil, "`podsh image import` takes a root file system", "%q is no archive of images: it has neither index.json nor manifest.json", title)
}

// seekable opens a file to be read in any order: what can't be, or is compressed as a whole, is copied.
func seekable(ctx context.Context, store *image.Store, path string) (*os.File, error) {
	file := os.Stdin
	if path != "-" {
		var err error
		if file, err = os.Open(path); err != nil {
			return nil, err
		}
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, err
	}
	plain, kind, err := decompressed(&interruptible{ctx, file})
	if err != nil {
		file.Close()
		return nil, err
	}
	if info.Mode().IsRegular() && kind == "" && path != "-" {
		return file, nil
	}
	defer file.Close()
	defer plain.Close()
	return spool(store, plain)
}

// spool copies into a file that has no name any more, and goes with this process.
func spool(store *image.Store, r io.Reader) (*os.File, error) {
	spool, err := os.CreateTemp(store.Partial(), "spool-")
	if err != nil {
		return nil, &diskError{err}
	}
	if err := os.Remove(spool.Name()); err != nil {
		spool.Close()
		return nil, &diskError{err}
	}
	if _, err := io.Copy(diskWriter{spool}, r); err != nil {
		spool.Close()
		return nil, err
	}
	return spool, nil
}

// diskWriter marks the errors of writing.
type diskWriter struct{ io.Writer }

func (d diskWriter) Write(p []byte) (int, error) {
	n, err := d.Writer.Write(p)
	if err != nil {
		err = &diskError{err}
	}
	return n, err
}

// interruptible reads until the context ends.
type interruptible struct {
	ctx context.Context
	io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.Reader.Read(p)
}

// decompressed reads what is compressed, or as it is.
func decompressed(r io.Reader) (plain io.ReadCloser, kind string, err error) {
	return compression.Open(bufio.NewReaderSize(r, pieceSize), compression.ArchiveWindow)
}

// scan notes where each file is.
func (a *archive) scan(ctx context.Context) error {
	if _, err := a.tar.Seek(0, io.SeekStart); err != nil {
		return err
	}
	for r := tar.NewReader(a.tar); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if len(a.entries) > maxEntries {
			return fmt.Errorf("it has more than %d files", maxEntries)
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := a.tar.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			a.entries[name] = entry{offset: at, size: h.Size}
		case tar.TypeSymlink:
			a.entries[name] = entry{link: path.Join(path.Dir(name), h.Linkname)}
		case tar.TypeLink:
			a.entries[name] = entry{link: path.Clean(h.Linkname)}
		}
	}
}

func (a *archive) has(name string) bool {
	_, ok := a.entries[name]
	return ok
}

func (a *archive) file(name string) (*io.SectionReader, io.Closer, error) {
	e, ok := a.entries[path.Clean(name)]
	for range 8 {
		if e.link == "" {
			break
		}
		e, ok = a.entries[e.link]
	}
	if !ok || e.link != "" {
		return nil, nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NewSectionReader(a.tar, e.offset, e.size), io.NopCloser(nil), nil
}

func (a *archive) close() { a.tar.Close() }
