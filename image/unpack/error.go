package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
)

var (
	errLimit   = errors.New("limit reached")
	errDigest  = errors.New("digests differ")
	errDamaged = errors.New("damaged")
)

// damages are what is wrong with a blob, in words.
var damages = []struct {
	is    error
	words string
}{
	{io.ErrUnexpectedEOF, "it is cut short"},
	{tar.ErrHeader, "it is not a tar archive"},
	{gzip.ErrHeader, "it is not gzip all through"},
	{gzip.ErrChecksum, "its gzip checksum is wrong"},
	{zstd.ErrWindowSizeExceeded, "its zstd window is of more than 16 MiB"},
	{zstd.ErrDecoderSizeExceeded, "its zstd window is of more than 16 MiB"},
	{zstd.ErrMagicMismatch, "it is not zstd all through"},
	{xz.ErrFormat, "it is not xz all through"},
	{xz.ErrData, "its xz data is damaged"},
	{xz.ErrBuf, "it is cut short"},
	{xz.ErrMemlimit, "its xz dictionary is of more than 64 MiB"},
}

// broken is an error of the blob: reading, decompressing, or as a tar.
func broken(layer *image.Layer, err error) error {
	words := err.Error()
	for _, d := range damages {
		if errors.Is(err, d.is) {
			words = d.words
			break
		}
	}
	return image.Fail(fmt.Errorf("%w: %w", errDamaged, err), "pull the image again; if it stays so, its author has to mend it",
		"layer %s can't be unpacked: %s", layer.Digest, words)
}

func (s *source) broken(err error) error {
	return broken(s.layer, err)
}

// explain says in our words what Apply or a hook came upon, and where.
func (u *unpacking) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// A hook's word, or the source's, comes out of Apply as it went in, or wrapped.
	var hinted interface {
		error
		Hints() []string
	}
	if errors.As(err, &hinted) {
		return hinted
	}
	var path *fs.PathError
	var link *os.LinkError
	var errno unix.Errno
	is := errors.As(err, &errno)
	switch {
	case is && errno == unix.EINVAL && errors.As(err, &path) && path.Op == "lchown" && u.entry != nil:
		return u.unmapped(err)
	case is && errors.As(err, &path):
		return fmt.Errorf("unpack layer %s: %s %s: %w", u.Layer.Digest, path.Op, u.name(path.Path), errno)
	case is && errors.As(err, &link):
		return fmt.Errorf("unpack layer %s: link %s to %s: %w", u.Layer.Digest, u.name(link.New), u.name(link.Old), errno)
	case is && u.entry != nil:
		return fmt.Errorf("unpack layer %s: write %s: %w", u.Layer.Digest, quote(u.entry.Name), errno)
	case errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF):
		return broken(u.Layer, err)
	case u.entry != nil:
		words := err.Error()
		if strings.HasPrefix(words, "failed to ") {
			_, words, _ = strings.Cut(words, ": ")
		}
		return fmt.Errorf("unpack layer %s: %s: %s", u.Layer.Digest, quote(u.entry.Name), words)
	}
	return fmt.Errorf("unpack layer %s: %w", u.Layer.Digest, err)
}

// unmapped names the ids: lchown(2) says EINVAL of one that has no mapping in the user namespace.
func (u *unpacking) unmapped(err error) error {
	h := u.entry
	return image.Fail(err, fmt.Sprintf("ranges in /etc/subuid and /etc/subgid that reach to id %d would do", max(h.Uid, h.Gid)),
		"unpack layer %s: %s belongs to user %d and group %d, which are not both among the ids of this user namespace",
		u.Layer.Digest, quote(h.Name), h.Uid, h.Gid)
}

// name is a path as the layer has it.
func (u *unpacking) name(path string) string {
	if u.root != "/" && len(path) > len(u.root) && path[:len(u.root)] == u.root {
		path = path[len(u.root)+1:]
	}
	return quote(path)
}

// quote quotes a name, which may be of a megabyte.
func quote(name string) string {
	const most = 200
	if len(name) > most {
		name = name[:most] + "…"
	}
	return strconv.Quote(name)
}

// counted is something left out: how often, and where first.
type counted struct {
	number int
	first  string
}

func (c *counted) add(name string) {
	if c.number++; c.number == 1 {
		c.first = quote(name)
	}
}

// warnings are what was left out of the layer.
type warnings struct{ devices, xattrs, squashed counted }

func (w *warnings) tell(tell func(image.Event)) {
	for _, c := range []struct {
		counted
		words string
	}{
		{w.devices, "device nodes left out of the layer: %d, the first is %s"},
		{w.xattrs, "extended attributes left out of the layer: %d, the first is %s"},
		{w.squashed, "files that belong to root now, as there is only one id: %d, the first is %s"},
	} {
		if c.number > 0 {
			tell(image.Event{Warning: fmt.Sprintf(c.words, c.number, c.first)})
		}
	}
}
