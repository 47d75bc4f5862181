package names

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"
)

// changing is a file of the host's that may change at any time: a VPN comes up, a laptop moves. A file that is
// missing is an empty one.
type changing[T any] struct {
	path  string
	most  int64 // bytes that are read of it
	parse func(text string) (T, error)

	mu     sync.Mutex
	looked time.Time   // at the last good reading; zero: there was none
	seen   fs.FileInfo // by the last good reading; nil: there was no file
	value  T           // of the last good reading; before it, what the maker put here
}

// read returns what the file says now, give or take a second; beside an error, what it said last.
func (c *changing[T]) read() (T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.looked.IsZero() && time.Since(c.looked) < time.Second {
		return c.value, nil
	}
	err := c.reread()
	if err == nil {
		c.looked = time.Now()
	}
	return c.value, err
}

func (c *changing[T]) reread() error {
	file, err := os.Open(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return c.take("", nil)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	now, err := file.Stat() // before it is read: a write in between makes it differ from this again
	if err != nil {
		return err
	}
	if c.seen != nil && os.SameFile(c.seen, now) && c.seen.ModTime().Equal(now.ModTime()) && c.seen.Size() == now.Size() {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(file, c.most))
	if err != nil {
		return err
	}
	return c.take(string(text), now)
}

func (c *changing[T]) take(text string, of fs.FileInfo) error {
	value, err := c.parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", c.path, err)
	}
	c.seen, c.value = of, value
	return nil
}
