package crilog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// follow reads on until the log's end or the context's.
func (r *reader) follow(ctx context.Context, events *watch) error {
	wake, ended := r.options.Wake, false
	for ctx.Err() == nil && !r.past {
		// Asked before reading: what was written before the end is there to be read.
		ended = ended || r.options.Ended != nil && r.options.Ended()
		if err := r.catchUp(ctx); err != nil {
			return err
		}
		if ended {
			break
		}
		if err := r.out.flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case _, open := <-wake:
			ended = !open
		case _, open := <-events.changed:
			if !open {
				return fmt.Errorf("read inotify of %s: %w", filepath.Dir(r.path), events.err)
			}
		}
	}
	if r.held > 0 && !r.past && ctx.Err() == nil {
		return r.give(r.buf[:r.held]) // torn, and nobody is there to end it
	}
	return nil
}

// catchUp reads all that there is, over rotations.
func (r *reader) catchUp(ctx context.Context) error {
	for ctx.Err() == nil && !r.past {
		// Before the file is read to its end: if it is not the current one any more, its writer has
		// done with it.
		current := len(r.files) == 1 && isCurrent(r.path, r.files)
		if len(r.files) > 0 {
			if err := r.drain(ctx); err != nil {
				return err
			}
		}
		if current {
			return nil
		}
		if len(r.files) <= 1 {
			found, err := r.findNewer()
			if err != nil || !found {
				return err
			}
		}
		if len(r.files) > 1 {
			if err := r.next(); err != nil {
				return err
			}
		}
	}
	return nil
}

// findNewer opens the files that came after the one being read. There may be several, and the one
// being read may be gone.
func (r *reader) findNewer() (bool, error) {
	files, err := openAll(r.path)
	if err != nil {
		return false, err
	}
	if len(r.files) == 0 {
		r.files = files
		return len(files) > 0, nil
	}
	ours, err := r.files[0].Stat()
	if err != nil {
		closeAll(files)
		return false, err
	}
	for i, file := range files {
		if info, err := file.Stat(); err == nil && os.SameFile(ours, info) {
			closeAll(files[:i+1])
			r.files = append(r.files, files[i+1:]...)
			return i+1 < len(files), nil
		}
	}
	if err := r.tellLost(files); err != nil {
		closeAll(files)
		return false, err
	}
	r.files = append(r.files, files...)
	return len(files) > 0, nil
}

// tellLost says how much was rotated away between the file being read, which is gone from the
// folder, and the oldest that is there.
func (r *reader) tellLost(newer []*os.File) error {
	if len(newer) == 0 {
		return nil
	}
	lost := "an unknown number of"
	ours, known := firstOf(r.files[0])
	oldest, also := firstOf(newer[0])
	info, err := r.files[0].Stat()
	if known && also && err == nil {
		n := oldest - ours - info.Size()
		if n <= 0 {
			return nil
		}
		lost = strconv.FormatInt(n, 10)
	}
	if err := r.out.flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(r.out.to[Stderr], "%s bytes of the log were rotated away unread\n", lost)
	return err
}

// A watch tells when something in a folder changes.
type watch struct {
	file    *os.File
	changed chan struct{} // closed after an error
	err     error
}

func watchFolder(path string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify_init1: %w", err)
	}
	w := &watch{file: os.NewFile(uintptr(fd), "inotify"), changed: make(chan struct{}, 1)}
	// The folder, not the file: that is where rotation happens.
	const mask = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), mask); err != nil {
		_ = w.file.Close()
		return nil, fmt.Errorf("inotify_add_watch %s: %w", filepath.Dir(path), err)
	}
	go w.run()
	return w, nil
}

// run reads the events only to know that there are some; what they say is seen better in the folder.
func (w *watch) run() {
	defer close(w.changed)
	buf := make([]byte, 16<<10)
	for {
		if _, err := w.file.Read(buf); err != nil {
			w.err = err
			return
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

func (w *watch) close() { _ = w.file.Close() }
