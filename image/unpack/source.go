package unpack

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/blake2b"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/image/compression"
)

const (
	chunkSize  = 256 << 10
	chunkCount = 24
	blobBuffer = 128 << 10
)

var hashes = map[string]func() hash.Hash{"sha256": sha256.New, "sha512": sha512.New, "blake2b-256": ownHash}

// ownHash is that of layers that podsh has made itself: image.Store.PutLayer.
func ownHash() hash.Hash {
	h, _ := blake2b.New256(nil) // it refuses keys alone
	return h
}

func newHash(digest string) (hash.Hash, error) {
	algorithm, _, _ := strings.Cut(digest, ":")
	if n := hashes[algorithm]; n != nil {
		return n(), nil
	}
	return nil, fmt.Errorf("digest %q is neither sha256 nor sha512: %w", digest, image.ErrInvalid)
}

// chunk is a piece of the tar; err follows its last byte.
type chunk struct {
	data []byte
	err  error
}

// source reads a blob: one goroutine reads, hashes and decompresses, one hashes the tar, and its user writes
// files meanwhile. Chunks go round: free, full, hashed, free.
type source struct {
	ctx                context.Context // a Reader has no other way to be told
	layer              *image.Layer
	read               atomic.Int64 // bytes of the blob
	blobHash, tarHash  hash.Hash
	free, full, hashed chan chunk
	stop               context.CancelFunc
	running            sync.WaitGroup
	current            chunk // held by the user
	left               []byte
	err                error // the last word, io.EOF if all went well
}

func openSource(ctx context.Context, blob *os.File, layer *image.Layer) (*source, error) {
	s := &source{layer: layer}
	var err error
	if s.blobHash, err = newHash(layer.Digest); err != nil {
		return nil, err
	}
	if s.tarHash, err = newHash(layer.DiffID); err != nil {
		return nil, err
	}
	s.ctx, s.stop = context.WithCancel(ctx)
	s.free, s.full, s.hashed = make(chan chunk, chunkCount), make(chan chunk, chunkCount+1), make(chan chunk, chunkCount+1)
	for range chunkCount {
		s.free <- chunk{data: make([]byte, chunkSize)}
	}
	s.running.Go(func() { s.decompress(blob) })
	s.running.Go(func() { s.hash() })
	return s, nil
}

// close ends the goroutines; the blob is not read any more after it.
func (s *source) close() {
	s.stop()
	s.running.Wait()
}

// Write counts and hashes what is read of the blob.
func (s *source) Write(p []byte) (int, error) {
	s.read.Add(int64(len(p)))
	return s.blobHash.Write(p)
}

func (s *source) decompress(blob io.Reader) {
	b := bufio.NewReaderSize(io.TeeReader(blob, s), blobBuffer)
	r, _, err := compression.Open(b, compression.LayerWindow)
	if err == nil {
		defer r.Close()
	}
	for err == nil {
		var c chunk
		select {
		case c = <-s.free:
		case <-s.ctx.Done():
			return
		}
		n := 0
		for n < chunkSize && err == nil {
			var k int
			k, err = r.Read(c.data[n:chunkSize])
			n += k
		}
		c.data = c.data[:n]
		s.full <- c
	}
	if err == io.EOF {
		if _, err = io.Copy(io.Discard, b); err == nil {
			err = io.EOF
		}
	}
	if err != io.EOF {
		err = s.broken(err)
	}
	select {
	case s.full <- chunk{err: err}:
	case <-s.ctx.Done():
	}
}

func (s *source) hash() {
	for {
		select {
		case c := <-s.full:
			_, _ = s.tarHash.Write(c.data)
			s.hashed <- c
			if c.err != nil {
				return
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// take returns what comes next of the tar, at most n bytes; they are there until the next call.
func (s *source) take(n int64) ([]byte, error) {
	for len(s.left) == 0 {
		if s.err != nil {
			return nil, s.err
		}
		if s.current.data != nil {
			s.free <- s.current
			s.current = chunk{}
		}
		select {
		case c := <-s.hashed:
			s.current, s.left, s.err = c, c.data, c.err
		case <-s.ctx.Done():
			return nil, s.ctx.Err()
		}
	}
	p := s.left[:min(n, int64(len(s.left)))]
	s.left = s.left[len(p):]
	return p, nil
}

// verify compares the digests with those that layer has, once all has been read.
func (s *source) verify(layer *image.Layer) error {
	for _, d := range []struct {
		what, want string
		hash       hash.Hash
	}{{"blob", layer.Digest, s.blobHash}, {"tar", layer.DiffID, s.tarHash}} {
		if d.want == "" {
			continue
		}
		algorithm, _, _ := strings.Cut(d.want, ":")
		if got := algorithm + ":" + hex.EncodeToString(d.hash.Sum(nil)); got != d.want {
			return image.Fail(errDigest, "the image is damaged or not what it says it is: pull it again",
				"the %s of layer %s is %s, not %s", d.what, s.layer.Digest, got, d.want)
		}
	}
	return nil
}
