package crilog

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options say how large a log may get.
type Options struct {
	MaxSize  int64 // of one file; 10 MiB if 0
	MaxFiles int   // the current one among them; 5 if 0
	// Trouble is told once when the log can't be written, for example because the disk is full. It
	// must not call the Writer. It may be nil.
	Trouble func(error)
}

// A Writer appends to a log. Only one process may do so at a time.
type Writer struct {
	path    string
	options Options
	closing chan struct{} // closed by Close: whoever waits gives up

	once     sync.Once // for closing
	trouble  sync.Once
	closeErr error

	// mu is held for a whole batch, also while that waits for room on the disk: the other stream's
	// lines must not come between the two parts of a torn line.
	mu      sync.Mutex
	file    *os.File
	size    int64
	first   int64  // how many bytes were in the files before this one
	last    int64  // the latest stamp, in nanoseconds since 1970
	torn    bool   // the file's last line still needs its newline
	batch   []byte // reused
	rotates int64  // the size at which to rotate
	copies  map[*source]struct{}
	closed  bool
}

// Open opens a log for appending, or makes it. A last line that a crash has torn is ended.
func Open(path string, o Options) (*Writer, error) {
	if o.MaxSize <= 0 {
		o.MaxSize = 10 << 20
	}
	if o.MaxFiles <= 0 {
		o.MaxFiles = 5
	}
	w := &Writer{path: path, options: o, closing: make(chan struct{}), copies: map[*source]struct{}{}}
	w.first = firstAfter(rotated(path, 1))
	if err := w.open(); err != nil {
		return nil, err
	}
	if first, ok := firstOf(w.file); ok {
		w.first = first
	}
	if err := w.mend(); err != nil {
		_ = w.file.Close()
		return nil, err
	}
	return w, nil
}

// open takes the file at the path as the current one.
func (w *Writer) open() error {
	// O_NOFOLLOW and O_NONBLOCK: a container that reaches the folder must not lead us to another
	// file, nor make us wait for a FIFO's reader.
	const flags = os.O_CREATE | os.O_APPEND | os.O_RDWR | unix.O_NOFOLLOW | unix.O_NONBLOCK
	file, err := os.OpenFile(w.path, flags, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: w.path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		_ = file.Close()
		return err
	}
	w.file, w.size, w.rotates = file, info.Size(), w.options.MaxSize
	if w.size == 0 {
		setFirst(file, w.first)
	}
	return nil
}

// mend ends what an earlier Writer could not: a line that a crash has torn, and lines that were to go
// on when their stream ended. Else the next one's first line would be taken for the rest of those.
func (w *Writer) mend() error {
	var seen, partial [2]bool
	var end []byte
	_, err := backwards(w.file, w.size, func(offset int64, raw []byte) bool {
		if len(end) == 0 && raw[len(raw)-1] != '\n' {
			end = append(end, '\n')
		}
		if line, ok := Parse(raw); ok && !seen[line.Stream] {
			seen[line.Stream], partial[line.Stream] = true, line.Partial
			w.last = max(w.last, line.Time.UnixNano()) // the clock may have been set back since
		}
		return w.size-offset < reach && !(seen[Stdout] && seen[Stderr])
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", w.path, err)
	}
	for _, stream := range Streams {
		if partial[stream] {
			end = append(append(end, w.prefix(stream)...), '\n')
		}
	}
	n, err := w.file.Write(end)
	w.size += int64(n)
	if noRoom(err) {
		// The first batch begins with the newline that is missing, if one is.
		w.torn, err = n > 0 && end[n-1] != '\n' || n == 0 && end[0] == '\n', nil
	}
	return err
}

// Close ends the Writer. A Copy that waits gives up; what it was waiting to complete is in the log.
func (w *Writer) Close() error {
	w.once.Do(func() {
		close(w.closing)
		w.mu.Lock()
		defer w.mu.Unlock()
		for s := range w.copies {
			s.wake()
			_ = w.flush(s)
		}
		w.closed = true
		w.closeErr = w.file.Close()
	})
	return w.closeErr
}

// stamp is the time of the next batch. The machine's clock may be set back; the log's is not.
func (w *Writer) stamp() time.Time {
	w.last = max(w.last, time.Now().UnixNano())
	return time.Unix(0, w.last).UTC()
}

// noRoom tells the errors that pass once someone makes room. EFBIG comes with SIGXFSZ, which
// ends a process that neither ignores nor catches it: setrlimit(2).
func noRoom(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}
