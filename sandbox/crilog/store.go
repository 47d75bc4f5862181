package crilog

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"time"
)

const (
	firstDelay = 10 * time.Millisecond
	lastDelay  = time.Second
)

// store writes whole lines, each file's share of them at once. It returns only when all are written,
// when the Writer is closed, or for an error that waiting does not mend.
func (w *Writer) store(batch []byte) error {
	for len(batch) > 0 {
		share := batch
		if w.size+int64(len(batch)) > w.rotates {
			room := max(w.rotates-w.size, 0)
			share = batch[:bytes.LastIndexByte(batch[:room], '\n')+1]
		}
		if len(share) == 0 && w.size > 0 {
			if err := w.insist(w.rotate); err != nil {
				if errors.Is(err, os.ErrClosed) {
					return err
				}
				// A log that grows too large is better than none.
				w.rotates = w.size + w.options.MaxSize
			}
			continue
		}
		if len(share) == 0 { // a line larger than a file
			share = batch[:bytes.IndexByte(batch, '\n')+1]
		}
		if err := w.append(share); err != nil {
			return err
		}
		batch = batch[len(share):]
	}
	return nil
}

// append writes lines to the current file. After a short write the remainder comes next, or if it
// never will, the torn line is taken back.
func (w *Writer) append(lines []byte) error {
	done := 0
	err := w.insist(func() error {
		n, err := w.file.Write(lines[done:])
		done += n
		w.size += int64(n)
		return err
	})
	if err != nil {
		torn := done - bytes.LastIndexByte(lines[:done], '\n') - 1
		if torn > 0 && w.file.Truncate(w.size-int64(torn)) == nil {
			w.size -= int64(torn)
		} else {
			w.torn = torn > 0 || done == 0 && lines[0] == '\n' // which begin put there for a torn line
		}
	}
	return err
}

// insist tries until there is room. Meanwhile nothing is read, the pipe fills and the container
// waits in write(2), as it would for a slow terminal: nothing is lost, and nobody is killed.
func (w *Writer) insist(try func() error) error {
	for delay := firstDelay; ; delay = min(2*delay, lastDelay) {
		err := try()
		if err == nil {
			return nil
		}
		w.tell(err)
		if !noRoom(err) {
			return err
		}
		timer := time.NewTimer(delay) // nothing in the kernel tells when a disk has room again
		select {
		case <-timer.C:
		case <-w.closing:
			timer.Stop()
			return errors.Join(os.ErrClosed, err)
		}
	}
}

func (w *Writer) tell(err error) {
	w.trouble.Do(func() {
		if w.options.Trouble != nil {
			w.options.Trouble(err)
		}
	})
}

// rotated is the name of the n-th file; the current one has number 0.
func rotated(path string, n int) string {
	if n == 0 {
		return path
	}
	return path + "." + strconv.Itoa(n)
}

// rotate moves every file to the next number, highest first, and begins a new one. A kill between two
// renames leaves a number free; files beyond a free number stay, so that the next rotation fills it
// and drops none.
func (w *Writer) rotate() error {
	free := 0
	for ; free < w.options.MaxFiles; free++ {
		if _, err := os.Lstat(rotated(w.path, free)); errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	for n := free - 1; n >= 0; n-- {
		if n == w.options.MaxFiles-1 {
			if err := os.Remove(rotated(w.path, n)); err != nil {
				return err
			}
			continue
		}
		if err := os.Rename(rotated(w.path, n), rotated(w.path, n+1)); err != nil {
			return err
		}
	}
	// There are more if the log was once opened with more.
	for n := w.options.MaxFiles; os.Remove(rotated(w.path, n)) == nil; n++ {
	}
	old, first := w.file, w.first
	w.first += w.size
	if err := w.open(); err != nil {
		w.first = first
		return err
	}
	return old.Close()
}
