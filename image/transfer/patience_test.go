package transfer

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// front is a server before a broken registry: it may answer itself, and remembers when it was asked for what.
type front struct {
	*broken
	host  string
	mutex sync.Mutex
	asked []time.Time
	paths []string
}

// startFront starts one with an image of a layer. answer says whether it has answered the n-th request, from 1.
func startFront(t *testing.T, answer func(f *front, n int, w http.ResponseWriter, r *http.Request) bool) *front {
	t.Helper()
	f := &front{broken: startBroken(t, randomImage(t, 300_000, 1, "amd64"))}
	f.serve = f.whole
	inner := f.Config.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mutex.Lock()
		f.asked, f.paths = append(f.asked, time.Now()), append(f.paths, r.URL.Path)
		n := len(f.asked)
		f.mutex.Unlock()
		if !answer(f, n, w, r) {
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	f.host = strings.TrimPrefix(server.URL, "http://")
	return f
}

// TestRetryAfter: a registry that has had enough is asked again when it says, and by nobody before.
func TestRetryAfter(t *testing.T) {
	var until time.Time
	f := startFront(t, func(f *front, n int, w http.ResponseWriter, r *http.Request) bool {
		f.mutex.Lock()
		defer f.mutex.Unlock()
		if time.Now().Before(until) {
			t.Errorf("%s is asked for %s too early", r.URL.Path, time.Until(until))
		}
		switch n {
		case 2: // the first is for /v2/
			until = time.Now().Add(time.Second)
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		case 5:
			date := time.Now().Add(2 * time.Second).Truncate(time.Second)
			until = date
			w.Header().Set("Retry-After", date.UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	_, h, err := pull(t, newStore(t), f.host+"/x")
	if err != nil || len(f.asked) < 6 {
		t.Error(f.paths, err)
	}
	if got := h.warnings(); len(got) > 2 {
		t.Errorf("warnings: %q", got)
	}
}

// TestRetryMuchLater: what is too long to wait for is said at once.
func TestRetryMuchLater(t *testing.T) {
	f := startFront(t, func(f *front, n int, w http.ResponseWriter, r *http.Request) bool {
		if n == 1 {
			return false
		}
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	_, _, err := pull(t, newStore(t), f.host+"/x")
	wantError(t, err, "has had too many requests, and wants none for 1h0m0s")
	if len(f.asked) != 2 {
		t.Error(f.paths)
	}
}

func (h *heard) warnings() []string {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	var all []string
	for _, event := range h.events {
		if event.Warning != "" {
			all = append(all, event.Warning)
		}
	}
	return all
}

// TestStalled: a registry that is open and sends nothing is not waited for for ever, wherever it does so; what there is
// already is not fetched again.
func TestStalled(t *testing.T) {
	before := maxStall
	maxStall = 300 * time.Millisecond
	defer func() { maxStall = before }()
	silent := func(w http.ResponseWriter, r *http.Request, length int) {
		w.Header().Set("Content-Length", fmt.Sprint(length))
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	t.Run("the first word", func(t *testing.T) {
		f := startFront(t, func(f *front, n int, w http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
		_, _, err := pull(t, newStore(t), f.host+"/x")
		wantError(t, err, `registry "`+f.host+`": nothing came for 300ms`)
	})
	t.Run("a manifest, once", func(t *testing.T) {
		f := startFront(t, func(f *front, n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 2 {
				silent(w, r, 1000)
			}
			return n == 2
		})
		_, h, err := pull(t, newStore(t), f.host+"/x")
		if got := h.warnings(); err != nil || len(got) != 1 || !strings.Contains(got[0], "nothing came for 300ms; it is asked again") {
			t.Errorf("%v, warnings: %q", err, got)
		}
	})
	t.Run("a layer, half-way", func(t *testing.T) {
		var ranges []string
		f := startFront(t, func(f *front, n int, w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, f.digest) {
				return false
			}
			ranges = append(ranges, r.Header.Get("Range"))
			if len(ranges) > 1 {
				return false
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(f.layer)))
			_, _ = w.Write(f.layer[:100_000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return true
		})
		_, h, err := pull(t, newStore(t), f.host+"/x")
		if got := h.warnings(); err != nil || len(got) != 1 || !strings.Contains(got[0], "nothing came for 300ms; it is asked again") {
			t.Errorf("%v, warnings: %q", err, got)
		}
		if !slices.Equal(ranges, []string{"", "bytes=100000-"}) {
			t.Errorf("asked for %q", ranges)
		}
	})
	t.Run("a layer, half-way and for ever", func(t *testing.T) {
		f := startFront(t, func(f *front, n int, w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, f.digest) {
				return false
			}
			if r.Header.Get("Range") == "" {
				w.Header().Set("Content-Length", fmt.Sprint(len(f.layer)))
				_, _ = w.Write(f.layer[:100_000])
				w.(http.Flusher).Flush()
			}
			<-r.Context().Done()
			return true
		})
		_, _, err := pull(t, newStore(t), f.host+"/x")
		wantError(t, err, "is gone half-way: nothing came for 300ms after 100000 of "+fmt.Sprint(len(f.layer))+" bytes")
	})
	t.Run("a layer, for ever", func(t *testing.T) {
		f := startFront(t, func(f *front, n int, w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, f.digest) {
				silent(w, r, len(f.layer))
			}
			return strings.HasSuffix(r.URL.Path, f.digest)
		})
		_, _, err := pull(t, newStore(t), f.host+"/x")
		wantError(t, err, `registry "`+f.host+`": nothing came for 300ms`)
	})
}

// TestNoAnswers: answers that are none are said to be what they are.
func TestNoAnswers(t *testing.T) {
	page := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!DOCTYPE html><title>Log in</title>")
	}
	for name, c := range map[string]struct {
		answer func(f *front, n int, w http.ResponseWriter, r *http.Request) bool
		words  string
	}{
		"a page for a token": {func(f *front, n int, w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/token" {
				page(w)
			} else {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, r.Host))
				w.WriteHeader(http.StatusUnauthorized)
			}
			return true
		}, "the service that it gets its tokens from sends none, but a web page or the like"},
		"a page for a manifest": {func(f *front, n int, w http.ResponseWriter, r *http.Request) bool { page(w); return true },
			"answers with a web page, and no manifest"},
		"a manifest in gzip": {func(f *front, n int, w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/manifests/") {
				w.Header().Set("Content-Encoding", "gzip")
				_, _ = w.Write(gzipOf(t, f.manifest))
			}
			return strings.Contains(r.URL.Path, "/manifests/")
		}, `sends a manifest with Content-Encoding "gzip", which nobody has asked for`},
	} {
		t.Run(name, func(t *testing.T) {
			f := startFront(t, c.answer)
			_, _, err := pull(t, newStore(t), f.host+"/x")
			wantError(t, err, `registry "`+f.host+`"`, c.words)
			if len(f.asked) > 2 {
				t.Error("asked again: ", f.paths)
			}
		})
	}
}

// TestMissingHelper: credentials that can't be asked for are missed where some are wanted, and only there.
func TestMissingHelper(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	file := filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json")
	if err := os.WriteFile(file, []byte(`{"auths":{},"credsStore":"podsh-test-absent"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	f := startFront(t, func(f *front, n int, w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/secret/") {
			w.WriteHeader(http.StatusUnauthorized)
		}
		return strings.Contains(r.URL.Path, "/secret/")
	})
	_, h, err := pull(t, newStore(t), f.host+"/x")
	if got := h.warnings(); err != nil || len(got) != 1 || !strings.Contains(got[0], "docker-credential-podsh-test-absent") {
		t.Errorf("%v, warnings: %q", err, got)
	}
	_, _, err = pull(t, newStore(t), f.host+"/secret/x")
	wantError(t, err, "wants credentials")
	if hint := hintOf(err); !strings.Contains(hint, `"credsStore"`) || !strings.Contains(hint, file) {
		t.Error(hint)
	}
	if err := os.WriteFile(file, []byte(`{`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := pull(t, newStore(t), f.host+"/x"); err != nil {
		t.Error("with a file that is none: ", err)
	}
}

func hintOf(err error) string {
	hinted, ok := err.(interface{ Hints() []string })
	if !ok || len(hinted.Hints()) == 0 {
		return ""
	}
	return hinted.Hints()[0]
}
