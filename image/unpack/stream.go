package unpack

import (
	"io"

	"github.com/podsh/podsh/image"
	"golang.org/x/sys/unix"
)

const (
	block = 512 // of a tar

	// maxHeader is how long the headers of an entry may be and still be read twice (sparse.go).
	maxHeader = 4 << 20

	// A tar is longer than its files: that much for an entry, and in all, is not held against Limits.Bytes.
	overheadEntry = 4 << 10
	overhead      = 16 << 20

	unknown = -1
)

// stream is the tar as Apply's tar.Reader sees it. archive/tar reads block by block and never ahead, so
// when the filter is asked about an entry, the stream stands where the entry's data begins. From that follows where
// the next header begins: a piece can end there, and a header can be kept to be read again.
type stream struct {
	source *source
	limit  image.Limits
	tell   func()

	position int64
	header   int64 // where the next one begins, or unknown
	entries  int64 // so far

	endPiece   bool // at the next header
	pieceEnded bool

	headers  []byte // of the entry in hand, as they were read
	complete bool   // those are of the entry in hand: the next belong to the next

	filler int64 // bytes that the tar.Reader believes are still to be skipped
}

func (s *stream) beginPiece() {
	s.endPiece, s.pieceEnded = false, false
}

// at is told by the filter that an entry of size bytes begins here.
func (s *stream) at(size int64) {
	s.complete, s.entries = true, s.entries+1
	s.header = unknown
	if size != unknown {
		// A global header is followed by padding, of which its size says nothing.
		s.header = roundUp(s.position + size)
	}
}

func roundUp(n int64) int64 { return (n + block - 1) &^ (block - 1) }

func (s *stream) Read(p []byte) (int, error) {
	if s.filler > 0 {
		n := int(min(int64(len(p)), s.filler))
		clear(p[:n])
		s.filler -= int64(n)
		return n, nil
	}
	if s.endPiece && s.position == s.header {
		s.pieceEnded = true
		return 0, io.EOF
	}
	if ahead := s.header - s.position; ahead > 0 {
		p = p[:min(int64(len(p)), ahead)]
	}
	isHeader := s.header != unknown && s.position >= s.header
	n, err := rest{s}.Read(p)
	if isHeader {
		if s.complete {
			s.headers, s.complete = s.headers[:0], false
		}
		if len(s.headers)+n <= maxHeader {
			s.headers = append(s.headers, p[:n]...)
		}
	}
	return n, err
}

// rest reads on without regard to pieces and headers.
type rest struct{ *stream }

func (r rest) Read(p []byte) (int, error) {
	data, err := r.take(int64(len(p)))
	return copy(p, data), err
}

func (s *stream) take(n int64) ([]byte, error) {
	s.tell()
	p, err := s.source.take(n)
	s.position += int64(len(p))
	if most := s.limit.Bytes; most > 0 && s.position > most+overhead+s.entries*overheadEntry {
		return nil, tooManyBytes(s.source.layer, most)
	}
	return p, err
}

// writeTo writes the entry's data, of size bytes, to fd; the tar.Reader then has them to skip.
func (s *stream) writeTo(fd int, size int64) error {
	for left := size; left > 0; {
		p, err := s.take(left)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		left -= int64(len(p))
		for len(p) > 0 {
			n, err := unix.Write(fd, p)
			if err != nil && err != unix.EINTR {
				return err
			}
			p = p[max(n, 0):]
		}
	}
	s.filler = size
	return nil
}
