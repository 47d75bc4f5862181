package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
)

// How long a blob is tried for. A source that sends something each time is tried more often.
const (
	maxTries   = 5
	maxRestart = 50
	eventPause = 100 * time.Millisecond
	pieceSize  = 256 << 10
)

// firstWait is the time before a blob is tried once more; it doubles each time.
var firstWait = 200 * time.Millisecond

// digestError is a blob that is not what it should be.
type digestError struct{ want, has string }

func (e *digestError) Error() string {
	return fmt.Sprintf("wrong digest: %s should be %s", e.has, e.want)
}

// diskError is an error in writing, not in reading.
type diskError struct{ err error }

func (e *diskError) Error() string { return e.err.Error() }
func (e *diskError) Unwrap() error { return e.err }

func (p *pulling) has(d image.Descriptor) bool {
	info, err := os.Lstat(p.store.BlobPath(d.Digest))
	return err == nil && info.Mode().IsRegular() && info.Size() == d.Size
}

// blob brings a blob into the store, unless it is there. Two that bring the same one share the work.
func (p *pulling) blob(ctx context.Context, d image.Descriptor) error {
	ready := image.Event{Blob: d.Digest, Done: d.Size, Size: d.Size, Ready: true}
	if p.has(d) {
		p.tell(ready)
		return nil
	}
	path := p.store.PartialPath(d.Digest)
	part, err := lockPartial(ctx, path)
	if err != nil {
		return err
	}
	defer part.Close()
	if p.has(d) { // somebody else has brought it
		os.Remove(path)
		p.tell(ready)
		return nil
	}
	b := &bringing{pulling: p, part: part, d: d}
	if err := b.bring(ctx); err != nil {
		var wrong *digestError
		if errors.As(err, &wrong) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			os.Remove(path) // nothing to go on with; and a full disk needs the room
		}
		return err
	}
	if err := part.Sync(); err != nil { // else the name may outlive a power failure, and the blob not
		return &diskError{err}
	}
	if err := os.Rename(path, p.store.BlobPath(d.Digest)); err != nil {
		return &diskError{err}
	}
	p.tell(ready)
	return nil
}

// lockPartial opens the file of a blob that is being downloaded, when nobody else is at it.
func lockPartial(ctx context.Context, path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, &diskError{err}
		}
		locked := make(chan error)
		go func() { // flock(2) knows no deadline
			err := error(unix.EINTR)
			for err == unix.EINTR {
				err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
			}
			select {
			case locked <- err:
			case <-ctx.Done(): // nobody waits for it any more
				f.Close()
			}
		}()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case err := <-locked:
			if err != nil {
				f.Close()
				return nil, fmt.Errorf("flock %s: %w", path, err)
			}
		}
		here, err := f.Stat()
		if err == nil {
			if there, err := os.Lstat(path); err == nil && os.SameFile(here, there) {
				return f, nil
			}
		}
		f.Close() // it is whole now, and has another name
	}
}

// bringing is a blob on its way into the store.
type bringing struct {
	*pulling
	part *os.File
	d    image.Descriptor
	hash hash.Hash
	done int64
	told time.Time
}

// bring goes on where the file ends.
func (b *bringing) bring(ctx context.Context) error {
	if err := b.resume(); err != nil {
		return err
	}
	resumed := b.done > 0
	for {
		if err := b.untilWhole(ctx); err != nil {
			return err
		}
		has := "sha256:" + hex.EncodeToString(b.hash.Sum(nil))
		if has == b.d.Digest {
			return nil
		}
		if !resumed {
			return &digestError{b.d.Digest, has}
		}
		resumed = false // what was there from before may be to blame
		if err := b.restart(); err != nil {
			return err
		}
	}
}

// resume reads what is there from before.
func (b *bringing) resume() error {
	b.hash = sha256.New()
	info, err := b.part.Stat()
	if err != nil {
		return err
	}
	if info.Size() > b.d.Size {
		return b.restart()
	}
	b.done, err = io.Copy(b.hash, io.NewSectionReader(b.part, 0, info.Size()))
	return err
}

func (b *bringing) restart() error {
	b.hash.Reset()
	b.done = 0
	if err := b.part.Truncate(0); err != nil {
		return &diskError{err}
	}
	return nil
}

// untilWhole tries until the blob is as long as it should be.
func (b *bringing) untilWhole(ctx context.Context) error {
	tries, wait := 0, firstWait
	for n := 0; b.done < b.d.Size; n++ {
		before := b.done
		err := b.transfer(ctx)
		if err == nil {
			continue
		}
		if b.done > before {
			tries, wait = 0, firstWait
		}
		if tries++; tries >= maxTries || n >= maxRestart || ctx.Err() != nil || !b.source.again(err) {
			return err
		}
		b.source.retries(err)
		if err := pause(ctx, wait); err != nil {
			return err
		}
		wait *= 2
	}
	return nil
}

// pause waits before the next try.
func pause(ctx context.Context, wait time.Duration) error {
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// transfer copies what the source sends, to its end.
func (b *bringing) transfer(ctx context.Context) error {
	blob, at, err := b.source.open(ctx, b.d, b.done)
	if err == nil {
		defer blob.Close()
		if at != b.done {
			err = b.restart()
		}
	}
	piece := make([]byte, pieceSize)
	for err == nil {
		var n int
		n, err = blob.Read(piece)
		if b.done+int64(n) > b.d.Size {
			return fmt.Errorf("blob %s is longer than the %d bytes that its manifest tells", b.d.Digest, b.d.Size)
		}
		if _, err := b.part.WriteAt(piece[:n], b.done); err != nil {
			return &diskError{err}
		}
		b.hash.Write(piece[:n])
		b.done += int64(n)
		b.progress()
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err == io.EOF {
		if b.done == b.d.Size {
			return nil
		}
		err = io.ErrUnexpectedEOF
	}
	if b.done > 0 {
		err = &brokenOff{b.done, b.d.Size, err}
	}
	return err
}

// brokenOff is a transfer that ended half-way.
type brokenOff struct {
	done, size int64
	err        error
}

func (e *brokenOff) Error() string {
	return fmt.Sprintf("it ended after %d of %d bytes: %v", e.done, e.size, e.err)
}
func (e *brokenOff) Unwrap() error { return e.err }

func (b *bringing) progress() {
	if now := time.Now(); now.Sub(b.told) >= eventPause {
		b.told = now
		b.tell(image.Event{Blob: b.d.Digest, Done: b.done, Size: b.d.Size})
	}
}

// putBlob writes a small blob whose digest is known to be right.
func putBlob(store *image.Store, digest string, text []byte) error {
	path := store.BlobPath(digest)
	f, err := os.CreateTemp(store.Partial(), "blob-")
	if err != nil {
		return &diskError{err}
	}
	defer f.Close()
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return &diskError{err}
	}
	return nil
}
