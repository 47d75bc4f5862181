package unpack

import (
	"archive/tar"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/containerd/v2/pkg/archive"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
)

// eventInterval keeps progress to 10 events a second.
const eventInterval = 100 * time.Millisecond

// Unpack unpacks the layer of request, whose blob is open, into "/".
func Unpack(ctx context.Context, blob *os.File, request *image.Request, tell func(image.Event)) error {
	return unpackInto(ctx, "/", blob, request, tell)
}

// unpacking is one layer on its way into the folder root.
type unpacking struct {
	*image.Request
	digests  *image.Layer // to be held against, as the request has them
	root     string
	rootFD   int // the root, O_PATH: what is looked up below it does not get out, openat2(2)
	stream   *stream
	entry    *tar.Header // in hand
	rootDir  *tar.Header // the layer's own word about the root, if it has one
	entries  int64
	bytes    int64
	piece    piece
	parent   parent // open, if it has a name
	implied  implied
	white    whiteouts
	sparse   sparse
	warnings warnings
	xattrs   xattrs
}

func unpackInto(ctx context.Context, root string, blob *os.File, request *image.Request, tell func(image.Event)) error {
	if request.Layer == nil {
		return fmt.Errorf("unpack: no layer is named: %w", image.ErrInvalid)
	}
	// A layer that is known by its tar only is called by that.
	named, layer := *request, *request.Layer
	layer.Digest = cmp.Or(layer.Digest, layer.DiffID)
	named.Layer = &layer
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", root, err)
	}
	defer func() { _ = unix.Close(fd) }()
	source, err := openSource(ctx, blob, &layer)
	if err != nil {
		return err
	}
	defer source.close()

	u := &unpacking{Request: &named, digests: request.Layer, root: root, rootFD: fd}
	u.stream = &stream{source: source, limit: request.Limits, tell: progress(&layer, source, tell)}
	defer u.removeSparse()
	defer u.forgetParent()
	err = u.apply(ctx)
	if err == nil {
		err = u.finish()
	}
	if err != nil {
		return u.explain(ctx, err)
	}
	u.warnings.tell(tell)
	tell(image.Event{Implied: u.impliedNames()})
	tell(image.Event{Blob: layer.Digest, Done: source.read.Load(), Size: layer.Size})
	return nil
}

// apply gives the layer to Apply, a piece at a time.
func (u *unpacking) apply(ctx context.Context) error {
	for more := true; more; {
		u.piece = piece{number: u.piece.number + 1}
		u.stream.beginPiece()
		_, err := archive.Apply(ctx, u.root, u.stream,
			archive.WithFilter(u.filter), archive.WithConvertWhiteout(u.place))
		if err != nil {
			return err
		}
		u.removeSparse()
		if err := u.restoreTimes(); err != nil {
			return err
		}
		more = u.stream.pieceEnded
	}
	return nil
}

// finish does what has to wait for the last entry, and holds the digests against the layer's.
func (u *unpacking) finish() error {
	// The digest is of the whole stream, also of what follows the end of the archive.
	if _, err := io.Copy(io.Discard, rest{u.stream}); err != nil {
		return err
	}
	if err := u.stream.source.verify(u.digests); err != nil {
		return err
	}
	if err := u.makeWhiteouts(); err != nil {
		return err
	}
	return u.finishRoot()
}

// finishRoot gives the root what the layer says of it: Apply leaves it as it is.
func (u *unpacking) finishRoot() error {
	h := u.rootDir
	if h == nil {
		return nil
	}
	u.entry = h
	if err := os.Lchown(u.root, h.Uid, h.Gid); err != nil {
		return err
	}
	for name, value := range keptXattrs(h) {
		if err := unix.Lsetxattr(u.root, name, []byte(value), 0); err != nil {
			return &os.PathError{Op: "setxattr " + name + " of", Path: u.root, Err: err}
		}
	}
	if err := os.Chmod(u.root, h.FileInfo().Mode()); err != nil {
		return err
	}
	return os.Chtimes(u.root, h.ModTime, h.ModTime)
}

// progress makes the function that tells how much of the blob has been read, now and then.
func progress(layer *image.Layer, source *source, tell func(image.Event)) func() {
	last := time.Now()
	return func() {
		if now := time.Now(); now.Sub(last) >= eventInterval {
			last = now
			tell(image.Event{Blob: layer.Digest, Done: source.read.Load(), Size: layer.Size})
		}
	}
}
