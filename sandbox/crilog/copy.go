package crilog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	readSize = 128 << 10
	pipeSize = 256 << 10 // a user has 64 MiB for all pipes before they get small: pipe(7)
	maxKept  = 1 << 20   // a batch's buffer that has grown beyond is not kept
)

// Copy writes what comes from a pipe or a terminal to the log until it ends, or the Writer does. Each
// stream needs a goroutine of its own. tee, which may be nil, gets every chunk as it came, before it
// is in the log; it must not keep it.
func (w *Writer) Copy(stream Stream, from *os.File, tee func([]byte)) error {
	s, err := w.newSource(stream, from)
	if err != nil {
		return err
	}
	defer w.drop(s)
	var failed error
	for {
		n, err := s.read()
		chunk := s.buf[s.rest : s.rest+n]
		if n > 0 && tee != nil {
			tee(chunk)
		}
		if n > 0 {
			if err := w.add(s, n); err != nil && failed == nil {
				failed = err
			}
		}
		if failed != nil && errors.Is(failed, os.ErrClosed) {
			return failed
		}
		if err != nil {
			return errors.Join(failed, w.finish(s, err))
		}
	}
}

// finish writes the rest after a source's end and tells whether that end was an error.
func (w *Writer) finish(s *source, end error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.flush(s)
	delete(w.copies, s) // or Close would do so again
	switch {
	case end == io.EOF, errors.Is(end, unix.EIO): // EIO: a terminal's other side is closed
		return err
	case errors.Is(end, os.ErrDeadlineExceeded), w.closed:
		return os.ErrClosed
	}
	return errors.Join(err, fmt.Errorf("read %s of the container: %w", s.stream, end))
}

// add writes the whole lines among what was pending and the n bytes that were just read.
func (w *Writer) add(s *source, n int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return os.ErrClosed
	}
	text := s.buf[:s.rest+n]
	batch, rest := w.format(s.stream, text)
	s.rest = copy(s.buf, rest)
	return w.store(batch)
}

// flush writes a pending rest. Like containerd it tags the line as one without an end: who reads it
// gets exactly the container's output.
func (w *Writer) flush(s *source) error {
	if s.rest == 0 || w.closed {
		return nil
	}
	p := w.prefix(s.stream)
	p[len(p)-2] = 'P'
	w.batch = append(append(append(w.begin(), p...), s.buf[:s.rest]...), '\n')
	return w.store(w.batch)
}

// begin is an empty batch.
func (w *Writer) begin() []byte {
	if cap(w.batch) > maxKept {
		w.batch = nil
	}
	if w.torn {
		w.torn = false
		return append(w.batch[:0], '\n')
	}
	return w.batch[:0]
}

// prefix is what comes before the text of a full line.
func (w *Writer) prefix(stream Stream) []byte {
	p := w.stamp().AppendFormat(make([]byte, 0, 64), stampLayout)
	p = append(p, ' ')
	p = append(p, stream.String()...)
	return append(p, " F "...)
}

// format makes log lines of the text and returns what is left without a newline.
func (w *Writer) format(stream Stream, text []byte) (batch, rest []byte) {
	p := w.prefix(stream)
	tag := len(p) - 2
	batch = w.begin()
	for len(text) > 0 {
		end := bytes.IndexByte(text, '\n')
		if end < 0 && len(text) <= maxText {
			break
		}
		next := end + 1
		if p[tag] = 'F'; end < 0 || end > maxText {
			p[tag], end, next = 'P', maxText, maxText
		}
		batch = append(append(append(batch, p...), text[:end]...), '\n')
		text = text[next:]
	}
	w.batch = batch
	return batch, text
}

// A source is what one Copy reads.
type source struct {
	stream Stream
	file   *os.File
	waits  bool // the file has no deadlines: wait for it and for woken
	woken  int  // an eventfd, if waits

	buf  []byte
	rest int // how much of buf is pending; set under Writer.mu, as Close reads it
}

func (w *Writer) newSource(stream Stream, from *os.File) (*source, error) {
	if stream != Stdout && stream != Stderr {
		return nil, fmt.Errorf("no stream %d", int(stream))
	}
	s := &source{stream: stream, file: from, woken: -1, buf: make([]byte, maxText+readSize)}
	if conn, err := from.SyscallConn(); err == nil {
		// Refused for a terminal, and beyond the user's limit: a smaller pipe does as well.
		_ = conn.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
	if from.SetReadDeadline(time.Time{}) != nil {
		// A descriptor that blocks, as those that came from another process do. To make it
		// non-blocking would change it for all who share it.
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			return nil, fmt.Errorf("eventfd: %w", err)
		}
		s.waits, s.woken = true, fd
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		s.end()
		return nil, os.ErrClosed
	}
	w.copies[s] = struct{}{}
	return s, nil
}

func (w *Writer) drop(s *source) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.copies, s)
	s.end()
}

func (s *source) end() {
	if s.waits {
		_ = unix.Close(s.woken)
	}
}

// wake makes a read that waits return.
func (s *source) wake() {
	if s.waits {
		_, _ = unix.Write(s.woken, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		return
	}
	_ = s.file.SetReadDeadline(time.Unix(1, 0))
}

func (s *source) read() (int, error) {
	if s.waits {
		fd := int32(s.file.Fd())
		if fd < 0 { // which poll would pass over
			return 0, os.ErrClosed
		}
		fds := []unix.PollFd{{Fd: fd, Events: unix.POLLIN}, {Fd: int32(s.woken), Events: unix.POLLIN}}
		for {
			_, err := unix.Poll(fds, -1)
			if err == nil {
				break
			}
			if err != unix.EINTR {
				return 0, fmt.Errorf("poll: %w", err)
			}
		}
		if fds[1].Revents != 0 {
			return 0, os.ErrDeadlineExceeded
		}
	}
	return s.file.Read(s.buf[s.rest:])
}
