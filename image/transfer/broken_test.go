package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/podsh/podsh/image"
)

// broken is a registry that does what none should.
type broken struct {
	*httptest.Server
	host     string
	layer    []byte // of the one image, "x:latest"
	digest   string // of the layer
	manifest []byte
	serve    func(w http.ResponseWriter, r *http.Request) // the layer
	asked    atomic.Int32                                 // how often for the layer
}

func startBroken(t *testing.T, img v1.Image) *broken {
	t.Helper()
	b := &broken{}
	var err error
	if b.manifest, err = img.RawManifest(); err != nil {
		t.Fatal(err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	all, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, _ := all[0].Digest()
	b.digest = digest.String()
	compressed, err := all[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	if b.layer, err = io.ReadAll(compressed); err != nil {
		t.Fatal(err)
	}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", manifests[1])
			_, _ = w.Write(b.manifest)
		case strings.HasSuffix(r.URL.Path, b.digest):
			b.asked.Add(1)
			b.serve(w, r)
		case strings.Contains(r.URL.Path, "/blobs/"):
			_, _ = w.Write(config)
		}
	}))
	t.Cleanup(b.Close)
	b.host = strings.TrimPrefix(b.URL, "http://")
	return b
}

// whole sends the layer as one should.
func (b *broken) whole(w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b.layer))
}

// half sends what is asked for, but not all of it.
func (b *broken) half(w http.ResponseWriter, r *http.Request, bytes int) {
	var from int
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(b.layer)-1, len(b.layer)))
		w.Header().Set("Content-Length", fmt.Sprint(len(b.layer)-from))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		w.Header().Set("Content-Length", fmt.Sprint(len(b.layer)))
	}
	_, _ = w.Write(b.layer[from:min(len(b.layer), from+bytes)])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// brokenCase is one way to misbehave.
type brokenCase struct {
	name  string
	serve func(b *broken, w http.ResponseWriter, r *http.Request)
	asked int32
	words []string // of the error; none: it is pulled all the same
	rest  bool     // a partial blob stays
}

// TestBroken pulls from registries that misbehave. Whatever they do, nothing half looks whole.
func TestBroken(t *testing.T) {
	img := randomImage(t, 400_000, 1, "amd64")
	for _, c := range []brokenCase{
		{"cut off again and again", func(b *broken, w http.ResponseWriter, r *http.Request) { b.half(w, r, 50_000) }, 9, nil, false},
		{"cut off, and then nothing more", func(b *broken, w http.ResponseWriter, r *http.Request) {
			if b.asked.Load() == 1 {
				b.half(w, r, 100_000)
			}
			panic(http.ErrAbortHandler)
		}, 5, []string{"is gone half-way: it ended after 100000 of"}, true},
		{"cut off, and no ranges", func(b *broken, w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			if b.asked.Load() < 3 {
				b.half(w, r, 100_000)
			}
			b.whole(w, r)
		}, 3, nil, false},
		{"out of order for a while", func(b *broken, w http.ResponseWriter, r *http.Request) {
			if b.asked.Load() < 3 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			b.whole(w, r)
		}, 3, nil, false},
		{"out of order for ever", func(b *broken, w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadGateway) }, maxTries, []string{"is out of order: Bad Gateway"}, true},
		{"too many requests", func(b *broken, w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }, maxTries, []string{"too many requests"}, true},
		{"wrong bytes", func(b *broken, w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(bytes.Repeat([]byte("x"), len(b.layer)))
		}, 1, []string{"wrong digest"}, false},
		{"too many bytes", func(b *broken, w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(append(bytes.Clone(b.layer), 'x'))
		}, 1, []string{"longer than"}, true},
		{"refused", func(b *broken, w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) }, 1, []string{"credentials"}, true},
		{"gone", func(b *broken, w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNotFound) }, 1, []string{"has no"}, true},
		{"another range", func(b *broken, w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 1-9/%d", len(b.layer)))
				w.WriteHeader(http.StatusPartialContent)
				return
			}
			if b.asked.Load() == 1 {
				b.half(w, r, 100_000)
			}
			b.whole(w, r)
		}, 3, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := startBroken(t, img)
			b.serve = func(w http.ResponseWriter, r *http.Request) { c.serve(b, w, r) }
			store := newStore(t)
			_, _, err := pull(t, store, b.host+"/x")
			c.check(t, b, store, err)
		})
	}
}

// check looks at what such a pull has left.
func (c *brokenCase) check(t *testing.T, b *broken, store *image.Store, err error) {
	t.Helper()
	if asked := b.asked.Load(); asked != c.asked {
		t.Errorf("asked %d times for the layer, not %d", asked, c.asked)
	}
	blob, statErr := os.Stat(store.BlobPath(b.digest))
	if c.words == nil {
		if err != nil || statErr != nil || blob.Size() != int64(len(b.layer)) {
			t.Fatal(err, statErr)
		}
	} else {
		if c.name == "too many bytes" {
			if err == nil || !strings.Contains(err.Error(), c.words[0]) {
				t.Error(err)
			}
		} else {
			wantError(t, err, c.words...)
		}
		if statErr == nil {
			t.Error("the layer is in the store")
		}
		if images, _ := store.List(); len(images) > 0 {
			t.Error("the image is in the store")
		}
	}
	if _, err := os.Stat(store.PartialPath(b.digest)); (err == nil) != c.rest {
		t.Errorf("partial blob: %v", err)
	}
}

// TestResume: a pull goes on where another was broken off, and what is wrong of that is not kept.
func TestResume(t *testing.T) {
	img := randomImage(t, 400_000, 1, "amd64")
	for name, spoil := range map[string]func([]byte) []byte{
		"as it was":   func(part []byte) []byte { return part },
		"other bytes": func(part []byte) []byte { return bytes.Repeat([]byte("x"), len(part)) },
		"too long":    func(part []byte) []byte { return append(part, make([]byte, 1_000_000)...) },
	} {
		t.Run(name, func(t *testing.T) {
			b := startBroken(t, img)
			store := newStore(t)
			ctx, cancel := context.WithCancelCause(context.Background())
			stopped := errors.New("stopped")
			b.serve = func(w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write(b.layer[:200_000])
				w.(http.Flusher).Flush()
				for {
					if info, err := os.Stat(store.PartialPath(b.digest)); err == nil && info.Size() == 200_000 {
						break
					}
					time.Sleep(time.Millisecond)
				}
				cancel(stopped)
				<-r.Context().Done()
			}
			_, err := Pull(ctx, store, &image.Request{Source: b.host + "/x"}, (&heard{}).tell)
			if err != stopped {
				t.Fatal("interrupted pull: ", err)
			}
			part, err := os.ReadFile(store.PartialPath(b.digest))
			if err != nil || len(part) != 200_000 {
				t.Fatal("partial blob: ", len(part), err)
			}
			if err := os.WriteFile(store.PartialPath(b.digest), spoil(part), 0o600); err != nil {
				t.Fatal(err)
			}
			var ranges []string
			b.serve = func(w http.ResponseWriter, r *http.Request) {
				ranges = append(ranges, r.Header.Get("Range"))
				b.whole(w, r)
			}
			if _, _, err := pull(t, store, b.host+"/x"); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"as it was": "[bytes=200000-]", "other bytes": "[bytes=200000- ]", "too long": "[]"}[name]
			if got := fmt.Sprint(ranges); got != want {
				t.Errorf("asked for %s, not for %s", got, want)
			}
		})
	}
}

// TestTwoPulls: two processes (here two pulls: flock(2) belongs to the open file) share the work.
func TestTwoPulls(t *testing.T) {
	b := startBroken(t, randomImage(t, 400_000, 1, "amd64"))
	both := make(chan struct{})
	b.serve = func(w http.ResponseWriter, r *http.Request) {
		<-both
		b.whole(w, r)
	}
	store := newStore(t)
	var found atomic.Int32
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			_, err := Pull(context.Background(), store, &image.Request{Source: b.host + "/x"}, func(event image.Event) {
				if event.Found != nil && found.Add(1) == 2 {
					close(both)
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if asked := b.asked.Load(); asked != 1 {
		t.Errorf("the layer was downloaded %d times", asked)
	}
	left, err := filepath.Glob(filepath.Join(store.Path, "partial", "*"))
	if err != nil || len(left) > 0 {
		t.Error("left in partial: ", left, err)
	}
}
