package crilog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

// ReadOptions say which lines to read.
type ReadOptions struct {
	Tail         int // how many of the last lines to begin with; all if negative
	Since, Until time.Time
	Timestamps   bool // a line's time and a space before it
	Follow       bool // wait for more
	// Ended tells whether nothing more will be written, which ends following. It may be nil. It is
	// asked when the log has changed and when Wake sends; closing Wake says the same as Ended.
	Ended func() bool
	Wake  <-chan struct{}
}

const blockSize = 64 << 10

// A position is a place in the files that a Read began with.
type position struct {
	file   int
	offset int64
}

func (p position) before(q position) bool {
	return p.file < q.file || p.file == q.file && p.offset < q.offset
}

type reader struct {
	path    string
	options ReadOptions
	files   []*os.File // oldest first; the first is being read
	at      position   // of what comes next
	from    [2]position
	buf     []byte // what was read and not yet given, at[:]
	held    int
	out     output
	within  [3]bool // whether the streams' current line is wanted; the third is for malformed ones
	open    [2]bool // whether the streams' last line goes on
	past    bool    // a line later than Until came
}

// Read gives a log's lines to out and errOut, without what the format adds to them. What is not in
// the format goes to out as it is.
func Read(ctx context.Context, path string, o ReadOptions, out, errOut io.Writer) error {
	r := &reader{path: path, options: o, buf: make([]byte, blockSize), within: [3]bool{true, true, true}}
	r.out.to = [2]io.Writer{out, errOut}
	defer func() { closeAll(r.files) }()
	var events *watch
	if o.Follow {
		var err error
		// Before the files are opened: a change after that is either seen or told.
		if events, err = watchFolder(path); err != nil {
			return err
		}
		defer events.close()
	}
	var err error
	if r.files, err = openAll(path); err != nil {
		return err
	}
	if len(r.files) == 0 && !o.Follow {
		return &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	if o.Tail >= 0 {
		if err := r.seekTail(); err != nil {
			return err
		}
	}
	if o.Follow {
		err = r.follow(ctx, events)
	} else {
		err = r.all(ctx)
	}
	return errors.Join(err, r.out.flush())
}

// all reads the files that there were at the beginning.
func (r *reader) all(ctx context.Context) error {
	for len(r.files) > 0 && !r.past && ctx.Err() == nil {
		if err := r.drain(ctx); err != nil {
			return err
		}
		if r.held > 0 && len(r.files) == 1 {
			// Most likely its writer was in the middle of it: a write(2) is not seen all at once.
			if err := r.drain(ctx); err != nil {
				return err
			}
		}
		if err := r.next(); err != nil {
			return err
		}
	}
	return nil
}

// drain reads the first file to its present end.
func (r *reader) drain(ctx context.Context) error {
	r.held = 0 // a torn line may have been taken back since
	for !r.past && ctx.Err() == nil {
		if r.held == len(r.buf) {
			// No line of ours is that long.
			if len(r.buf) >= 16*blockSize {
				if err := r.give(r.buf); err != nil {
					return err
				}
				r.held = 0
			} else {
				r.buf = append(r.buf, make([]byte, len(r.buf))...)
			}
		}
		n, err := r.files[0].ReadAt(r.buf[r.held:], r.at.offset+int64(r.held))
		r.held += n
		text, done := r.buf[:r.held], 0
		for end := 0; !r.past; done += end + 1 {
			if end = bytes.IndexByte(text[done:], '\n'); end < 0 {
				break
			}
			if err := r.give(text[done : done+end+1]); err != nil {
				return err
			}
		}
		r.held = copy(r.buf, text[done:])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// next goes on to the next file. Nothing will be added to this one any more: if its last line is
// torn, it stays so.
func (r *reader) next() error {
	if r.held > 0 && !r.past {
		if err := r.give(r.buf[:r.held]); err != nil {
			return err
		}
	}
	err := r.files[0].Close()
	r.files = r.files[1:]
	r.held, r.at = 0, position{r.at.file + 1, 0}
	return err
}

// give passes on a line, with its newline unless the file ends before it.
func (r *reader) give(raw []byte) error {
	here := r.at
	r.at.offset += int64(len(raw))
	line, ok := Parse(raw)
	if !ok {
		if here.before(r.from[Stdout]) || !r.within[2] {
			return nil
		}
		return r.out.write(Stdout, raw)
	}
	s := line.Stream
	if here.before(r.from[s]) {
		return nil
	}
	first := !r.open[s]
	r.open[s] = line.Partial
	if first {
		late := r.late(line.Time)
		r.within[s] = !late && !line.Time.Before(r.options.Since)
		r.within[2] = r.within[s] // what is malformed has its neighbour's time
		// Another stream's wanted line may still go on.
		r.past = late && !(r.open[1-s] && r.within[1-s])
	}
	if !r.within[s] {
		return nil
	}
	if first && r.options.Timestamps {
		if err := r.out.write(s, line.Stamp, []byte(" ")); err != nil {
			return err
		}
	}
	if line.Partial {
		return r.out.write(s, line.Text)
	}
	return r.out.write(s, line.Text, []byte("\n"))
}

func (r *reader) late(t time.Time) bool {
	return !r.options.Until.IsZero() && t.After(r.options.Until)
}

// output gathers what goes to one stream until the other's turn comes, so that the two keep their
// order where both are one terminal.
type output struct {
	to     [2]io.Writer
	stream Stream
	buf    []byte
}

func (o *output) write(s Stream, parts ...[]byte) error {
	if s != o.stream || len(o.buf) >= blockSize {
		if err := o.flush(); err != nil {
			return err
		}
		o.stream = s
	}
	for _, part := range parts {
		o.buf = append(o.buf, part...)
	}
	return nil
}

func (o *output) flush() error {
	if len(o.buf) == 0 {
		return nil
	}
	_, err := o.to[o.stream].Write(o.buf)
	o.buf = o.buf[:0]
	return err
}
