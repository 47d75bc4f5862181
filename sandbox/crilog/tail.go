package crilog

import (
	"bytes"
	"os"
)

// reach is how far before the wanted lines the beginnings of those are looked for that the other
// stream's lines cut in pieces.
const reach = 1 << 20

// A tail finds the last lines by reading backwards. A line may have many pieces, with the other
// stream's between them; it counts where it ends.
type tail struct {
	r       *reader
	count   int
	full    bool // as many as wanted
	beyond  int  // bytes read since
	from    [2]position
	started [2]bool // the stream's earliest wanted line may have pieces before
	seen    [2]bool // the stream has a later piece
}

// seekTail makes the reader begin where its last lines do.
func (r *reader) seekTail() error {
	end := position{len(r.files), 0}
	t := &tail{r: r, from: [2]position{end, end}}
	sizes := make([]int64, len(r.files))
	for i, file := range r.files {
		info, err := file.Stat()
		if err != nil {
			return err
		}
		sizes[i] = info.Size()
	}
	if n := len(sizes); n > 0 {
		// What is written from now on is wanted, also with a tail of none. A line without its newline
		// is being written, perhaps: whose it is can't be told yet.
		_, err := backwards(r.files[n-1], sizes[n-1], func(offset int64, line []byte) bool {
			if line[len(line)-1] != '\n' {
				sizes[n-1] = offset
			}
			return false
		})
		if err != nil {
			return err
		}
		end = position{n - 1, sizes[n-1]}
		t.from = [2]position{end, end}
	}
	for i := len(r.files) - 1; i >= 0; i-- {
		more, err := backwards(r.files[i], sizes[i], func(offset int64, line []byte) bool {
			return t.add(position{i, offset}, line)
		})
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	r.from = t.from
	begin := t.from[Stdout]
	if t.from[Stderr].before(begin) {
		begin = t.from[Stderr]
	}
	for r.at.file < begin.file && len(r.files) > 1 {
		if err := r.next(); err != nil {
			return err
		}
	}
	r.at = begin
	return nil
}

// add looks at the line before those that it has seen. It is false when no earlier one is wanted.
func (t *tail) add(at position, raw []byte) bool {
	line, ok := Parse(raw)
	s := line.Stream
	if !ok {
		line.Partial = false
	}
	ends := !line.Partial || !t.seen[s]
	if ok {
		t.seen[s] = true
		if ends && t.r.late(line.Time) {
			t.started[s] = false
			return true
		}
	}
	if t.full {
		t.beyond += len(raw)
	}
	if ends {
		if ok {
			t.started[s] = false
		}
		if t.count >= max(t.r.options.Tail, 0) {
			t.full = true
		} else {
			t.count++
			t.from[s] = at
			t.started[s] = ok || t.started[s]
		}
	} else if t.started[s] {
		t.from[s] = at
	}
	return !t.full || t.beyond < reach && (t.started[Stdout] || t.started[Stderr])
}

// backwards calls each for the lines of a file's first size bytes, the last first, until it is false.
func backwards(file *os.File, size int64, each func(offset int64, line []byte) bool) (more bool, err error) {
	var text []byte // begins at offset; what is behind it is done
	for offset := size; offset > 0; {
		n := min(offset, blockSize)
		offset -= n
		block := make([]byte, int(n), int(n)+len(text))
		if _, err := file.ReadAt(block, offset); err != nil {
			return false, err
		}
		text = append(block, text...)
		for len(text) > 0 {
			begin := bytes.LastIndexByte(text[:len(text)-1], '\n') + 1
			if begin == 0 && offset > 0 {
				break // it may begin in an earlier block
			}
			if !each(offset+int64(begin), text[begin:]) {
				return false, nil
			}
			text = text[:begin]
		}
	}
	return true, nil
}
