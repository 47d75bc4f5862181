package transfer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
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

func TestPull(t *testing.T) {
	r := startRegistry(t, "", "")
	amd, arm := randomImage(t, 100_000, 3, "amd64"), randomImage(t, 1000, 1, "arm64")
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}}},
		mutate.IndexAddendum{Add: amd, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}})
	push(t, r.host+"/team/web:1", index)
	push(t, r.host+"/solo:latest", amd)

	store := newStore(t)
	request := &image.Request{Source: r.host + "/team/web:1", Platform: "linux/amd64"}
	h := &heard{}
	images, err := Pull(context.Background(), store, request, h.tell)
	if err != nil {
		t.Fatal(err)
	}
	img := images[0]
	digest, _ := amd.Digest()
	indexDigest, _ := index.Digest()
	if img.Digest != digest.String() || img.Index != indexDigest.String() || img.Config.Cmd[0] != "/bin/amd64" || len(img.Layers) != 3 {
		t.Errorf("pulled %+v", img)
	}
	checkEvents(t, h, img)
	for _, ref := range []string{r.host + "/team/web:1", r.host + "/team/web@" + img.Digest, r.host + "/team/web@" + img.Index, img.ShortID()} {
		if found, err := store.Find(ref); err != nil || found.Digest != img.Digest {
			t.Errorf("find %s: %v", ref, err)
		}
	}
	if out, err := exec.Command("skopeo", "inspect", "oci:"+store.Path+":"+r.host+"/team/web:1").CombinedOutput(); err != nil || !strings.Contains(string(out), img.Layers[0].Digest) {
		t.Errorf("skopeo can't read the store: %v %s", err, out)
	}

	t.Run("by digest", func(t *testing.T) {
		same, _, err := pull(t, store, r.host+"/team/web:1@"+img.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if want := r.host + "/team/web@" + img.Digest; same.Names[len(same.Names)-1] != want {
			t.Errorf("named %q, not %q", same.Names, want)
		}
	})
	t.Run("another name, from blobs that are there", func(t *testing.T) {
		same, h, err := pull(t, store, r.host+"/solo")
		if err != nil || same.Digest != img.Digest {
			t.Fatal(same, err)
		}
		for _, event := range h.events {
			if event.Blob != "" && !event.Ready {
				t.Errorf("%s was downloaded once more", event.Blob)
			}
		}
	})
	for _, c := range []struct{ name, source, platform, words string }{
		{"no platform", "/team/web:1", "linux/riscv64", `it has no image for linux/riscv64, only for linux/amd64, linux/arm64/v8`},
		{"malformed platform", "/team/web:1", "linux", `malformed platform "linux"`},
		{"another platform", "/solo", "linux/arm64", `it has no image for linux/arm64, only for linux/amd64`},
		{"no tag", "/team/web:2", "", `has no "` + r.host + `/team/web:2"`},
		{"no image", "/team/wbe", "", `has no "` + r.host + `/team/wbe:latest"`},
		{"no digest", "/team/web@sha256:" + strings.Repeat("0", 64), "", "has no "},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Pull(context.Background(), newStore(t), &image.Request{Source: r.host + c.source, Platform: c.platform}, h.tell)
			wantError(t, err, c.words)
		})
	}
}

// checkEvents: what was found comes first, and each blob is ready once.
func checkEvents(t *testing.T, h *heard, img *image.Image) {
	t.Helper()
	ready := map[string]int{}
	found := false
	for _, event := range h.events {
		found = found || event.Found != nil
		if event.Ready {
			ready[event.Blob]++
			if !found && event.Blob != img.ID {
				t.Errorf("%s came before what was found", event.Blob)
			}
		}
	}
	for _, layer := range img.Layers {
		if ready[layer.Digest] != 1 {
			t.Errorf("layer %s was ready %d times", layer.Digest, ready[layer.Digest])
		}
	}
}

func TestPullErrors(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := listener.Addr().String()
	listener.Close()
	_, _, err = pull(t, newStore(t), host+"/x")
	wantError(t, err, `registry "`+host+`": connection refused`)

	_, _, err = pull(t, newStore(t), "nowhere.invalid/x")
	wantError(t, err, `registry "nowhere.invalid": no such host`)

	_, _, err = pull(t, newStore(t), "Web")
	wantError(t, err, `malformed image name "Web"`)
}

// certificate makes a certificate for the loopback address, and the files that it lies in.
func certificate(t *testing.T, until time.Time) (file, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registry"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{file: {Type: "CERTIFICATE", Bytes: certificate}, key: {Type: "PRIVATE KEY", Bytes: text}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file, key
}

// TestTLS: the authority is unknown here, since crypto/x509 reads SSL_CERT_FILE once in a process; another process
// pulls with it.
func TestTLS(t *testing.T) {
	if source := os.Getenv("PODSH_TEST_PULL"); source != "" {
		if _, _, err := pull(t, newStore(t), source); err != nil {
			t.Fatal(err)
		}
		return
	}
	file, key := certificate(t, time.Now().Add(time.Hour))
	r := startRegistry(t, fmt.Sprintf("  tls: {certificate: %s, key: %s}\n", file, key), "")
	transport := newTransport()
	transport.TLSClientConfig = trusting(t, file)
	push(t, r.host+"/web", randomImage(t, 100, 1, "amd64"), remote.WithTransport(transport))

	_, _, err := pull(t, newStore(t), r.host+"/web")
	wantError(t, err, `registry "`+r.host+`": its certificate is signed by an unknown authority`)

	again := exec.Command(os.Args[0], "-test.run", "^TestTLS$")
	again.Env = append(os.Environ(), "PODSH_TEST_PULL="+r.host+"/web", "SSL_CERT_FILE="+file)
	if out, err := again.CombinedOutput(); err != nil {
		t.Errorf("with SSL_CERT_FILE: %v\n%s", err, out)
	}

	file, key = certificate(t, time.Now().Add(-time.Hour))
	r = startRegistry(t, fmt.Sprintf("  tls: {certificate: %s, key: %s}\n", file, key), "")
	_, _, err = pull(t, newStore(t), r.host+"/web")
	wantError(t, err, "is not valid", "expired")
}

// TestCredentials: htpasswd's own words for "user" and "secret", by bcrypt.
func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	htpasswd := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(htpasswd, []byte("user:"+secretBcrypt+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startRegistry(t, "", fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s}}\n", htpasswd))
	push(t, r.host+"/team/web", randomImage(t, 100, 1, "amd64"), remote.WithAuth(&authn.Basic{Username: "user", Password: "secret"}))

	_, _, err := pull(t, newStore(t), r.host+"/team/web")
	wantError(t, err, "wants credentials")

	const auth = `{"auths":{%q:{"auth":"dXNlcjpzZWNyZXQ="}}}` // user:secret
	for _, c := range []struct{ name, variable, file, key string }{
		{"docker", "DOCKER_CONFIG", "config.json", r.host},
		{"podman", "XDG_RUNTIME_DIR", "containers/auth.json", r.host},
		{"podman, of a repository", "XDG_RUNTIME_DIR", "containers/auth.json", r.host + "/team"},
		{"podman login, without a session", "XDG_CONFIG_HOME", "containers/auth.json", r.host},
		{"file", "REGISTRY_AUTH_FILE", "", r.host},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x")
			t.Setenv(c.variable, path)
			path = filepath.Join(path, c.file)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, fmt.Appendf(nil, auth, c.key), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := pull(t, newStore(t), r.host+"/team/web"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestGuard: what is not encrypted goes to this machine alone.
func TestGuard(t *testing.T) {
	called := ""
	inner := roundTripper(func(r *http.Request) (*http.Response, error) { called = r.URL.Host; return nil, errStalled })
	for _, c := range []struct {
		url          string
		plain, allow bool
	}{
		{"http://127.0.0.1:5000/v2/", false, true},
		{"http://127.9.9.9/v2/", false, true},
		{"http://localhost:5000/v2/", false, true},
		{"http://[::1]:5000/v2/", false, true},
		{"http://[::1]/v2/", false, true},
		{"http://10.0.0.1:5000/v2/", false, false},
		{"http://localhost.example/v2/", false, false},
		{"http://127.0.0.1.example:80/v2/", false, false},
		{"http://10.0.0.1:5000/v2/", true, true},
		{"https://10.0.0.1/v2/", false, true},
	} {
		called = ""
		request, err := http.NewRequest(http.MethodGet, c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = (&guard{c.plain, inner}).RoundTrip(request)
		if (called != "") != c.allow {
			t.Errorf("%s, plain http %t: reached %q", c.url, c.plain, called)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }
