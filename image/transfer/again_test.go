package transfer

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/podsh/podsh/image"
)

// TestFirstWord: a registry that stumbles when it is spoken to first is asked again, a few times.
func TestFirstWord(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter)
		wrong  int32 // how many requests go wrong before all is well
		words  []string
	}{
		{"out of order for a while", func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }, 3, nil},
		{"out of order for ever", func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }, 1000, []string{"is out of order: Service Unavailable"}},
		{"no registry", func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }, 1, []string{"is no registry: it has no /v2/"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := startBroken(t, randomImage(t, 100, 1, "amd64"))
			b.serve = b.whole
			inner := b.Config.Handler
			var asked atomic.Int32
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) <= c.wrong {
					c.answer(w)
					return
				}
				inner.ServeHTTP(w, r)
			}))
			defer front.Close()
			_, _, err := pull(t, newStore(t), strings.TrimPrefix(front.URL, "http://")+"/x")
			if c.words == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, c.words...)
			if n := asked.Load(); n > maxTries {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

// TestInterrupted: what was given up says so, and not what it stumbled over then.
func TestInterrupted(t *testing.T) {
	store := newStore(t)
	if _, err := importTar(t, store, tarOf(t, "a", "web"), webName); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	stopped := errors.New("stopped")
	cancel(stopped)
	file := filepath.Join(t.TempDir(), "out.tar")
	if _, err := Save(ctx, store, &image.Request{Images: []string{webName}, Format: "docker-archive", File: file}, (&heard{}).tell); err != stopped {
		t.Error("save: ", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "*")); len(left) > 0 {
		t.Error("left: ", left)
	}
	for _, source := range []string{"127.0.0.1:1/web", "oci:" + store.Path} {
		if _, err := Pull(ctx, newStore(t), &image.Request{Source: source}, (&heard{}).tell); err != stopped {
			t.Errorf("pull %s: %v", source, err)
		}
	}
}

// TestLockGivenUp: who waits for a blob that another one brings, and gives up, does not hold its lock afterwards.
func TestLockGivenUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "part")
	first, err := lockPartial(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	waits := make(chan error)
	go func() {
		_, err := lockPartial(ctx, path)
		waits <- err
	}()
	cancel()
	if err := <-waits; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	first.Close()
	again, err := lockPartial(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
