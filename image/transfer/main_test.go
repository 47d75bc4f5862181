package transfer

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/podsh/podsh/image"
)

// TestMain keeps the credentials of whoever runs the tests out of them.
func TestMain(m *testing.M) {
	for _, variable := range []string{"DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		os.Unsetenv(variable)
	}
	os.Setenv("HOME", os.DevNull)
	firstWait = time.Millisecond
	os.Exit(m.Run())
}

// skip skips a test, which where all must work is a failure.
func skip(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("PODSH_MUST_WORK") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// real is Debian's docker-registry on a free port of this machine.
type real struct {
	host    string
	process *exec.Cmd
	root    string
}

// startRegistry starts a registry; more is added to the section http of its settings, and auth is a section.
func startRegistry(t *testing.T, tls, auth string) *real {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		skip(t, "docker-registry is not installed")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := listener.Addr().String()
	listener.Close()
	dir := t.TempDir()
	settings := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp:\n  addr: %s\n%s%s", dir, host, tls, auth)
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &real{host: host, process: exec.Command(program, "serve", file), root: dir}
	if testing.Verbose() {
		r.process.Stderr = os.Stderr
	}
	if err := r.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	deadline := time.Now().Add(10 * time.Second)
	for {
		conn, err := net.Dial("tcp", host)
		if err == nil {
			conn.Close()
			return r
		}
		if time.Now().After(deadline) {
			t.Fatal("docker-registry does not listen: ", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *real) stop() {
	_ = r.process.Process.Kill()
	_ = r.process.Wait()
}

func newStore(t *testing.T) *image.Store {
	t.Helper()
	store, err := image.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// randomImage is an image for a platform.
func randomImage(t *testing.T, size, layers int64, arch string) v1.Image {
	t.Helper()
	img, err := random.Image(size, layers)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	config.Config.Cmd = []string{"/bin/" + arch}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

func push(t *testing.T, ref string, what remote.Taggable, options ...remote.Option) {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	switch what := what.(type) {
	case v1.Image:
		err = remote.Write(r, what, options...)
	case v1.ImageIndex:
		err = remote.WriteIndex(r, what, options...)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// heard collects events.
type heard struct {
	mutex  sync.Mutex
	events []image.Event
}

func (h *heard) tell(event image.Event) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.events = append(h.events, event)
}

func pull(t *testing.T, store *image.Store, source string) (*image.Image, *heard, error) {
	t.Helper()
	h := &heard{}
	images, err := Pull(context.Background(), store, &image.Request{Source: source}, h.tell)
	if err != nil {
		return nil, h, err
	}
	if len(images) != 1 {
		t.Fatalf("%d images", len(images))
	}
	return images[0], h, nil
}

// wantError compares an error with words that it must have, and looks that it has a hint.
func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q lacks %q", err, w)
		}
	}
	for _, bad := range []string{"failed to", "unable to", "Failed", "Unable"} {
		if strings.Contains(err.Error(), bad) {
			t.Errorf("error %q says %q", err, bad)
		}
	}
	if !hinted(err) {
		t.Errorf("error %q has no hint", err)
	}
}
