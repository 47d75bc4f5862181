package unpack

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// page is the least hole that is left.
const page = 4096

var zeros [page]byte

// sparse is what happens to a file with holes. Apply would write them out, and archive/tar has no word about
// where they are. So the entry is read a second time, from its header on, into a file of ours, and what is
// given to Apply instead is a hard link to that, as which it gets its owner, mode and times.
type sparse struct {
	next bool   // the entry in hand is one
	file string // of ours, to be removed
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, paxSparse) {
			return h.Typeflag == tar.TypeReg
		}
	}
	return false
}

func (u *unpacking) writeSparse(h *tar.Header) error {
	s := u.stream
	// Without the header, or if it is longer than what is kept, Apply writes the file out.
	again := bytes.NewReader(s.headers)
	r := tar.NewReader(io.MultiReader(again, rest{s}))
	if !s.complete {
		return nil
	}
	begin := s.position
	if _, err := r.Next(); err != nil || again.Len() != 0 || s.position != begin {
		return nil
	}
	name := ".podsh-" + rand.Text()
	path := filepath.Join(u.root, name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	u.sparse.file = path
	err = s.copyHoles(f, r, h.Size)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	s.filler = s.position - begin
	s.header = roundUp(s.position)
	h.Typeflag, h.Linkname = tar.TypeLink, "/"+name
	return nil
}

// copyHoles writes size bytes from r, which reads the stream, to f, except for pages of zeros.
func (s *stream) copyHoles(f *os.File, r io.Reader, size int64) error {
	buffer := make([]byte, 64<<10)
	for at := int64(0); ; {
		// A hole is made up by r: the stream, which knows when to stop, is not asked for it.
		if err := s.source.ctx.Err(); err != nil {
			return err
		}
		before := s.position
		n, err := io.ReadFull(r, buffer)
		isHole := s.position == before
		for i := 0; i < n && !isHole; i += page {
			p := buffer[i:min(i+page, n)]
			if bytes.Equal(p, zeros[:len(p)]) {
				continue
			}
			if _, err := f.WriteAt(p, at+int64(i)); err != nil {
				return err
			}
		}
		at += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF && at == size {
			break
		}
		if err != nil {
			return err
		}
	}
	return f.Truncate(size)
}

func (u *unpacking) removeSparse() {
	if u.sparse.file != "" {
		_ = os.Remove(u.sparse.file)
		u.sparse.file = ""
	}
}
