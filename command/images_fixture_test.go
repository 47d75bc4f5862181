package command

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// imageVerbs are what sessions of images can do besides.
var imageVerbs = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"images":   verbImages,
	"made":     verbMade,
	"registry": verbRegistry,
	"cut":      verbCut,
}

// testImages is the layout of scripts/images: $PODSH_TEST_IMAGES, or the one in the cache of whoever runs this,
// which is made now if need be, as root. It takes a minute or two.
var testImages = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("PODSH_TEST_IMAGES"); dir != "" {
		if !exists(filepath.Join(dir, "index.json")) {
			return "", fmt.Errorf("$PODSH_TEST_IMAGES has no images: %s", dir)
		}
		return filepath.Abs(dir)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("scripts/images").CombinedOutput(); err != nil {
		return "", fmt.Errorf("scripts/images: %w\n%s", err, out)
	}
	return filepath.Join(cache, "podsh-test-images"), nil
})

// needImages is testImages for a test, which is skipped where they can't be made.
func needImages(t *testing.T) string {
	t.Helper()
	dir, err := testImages()
	if err != nil {
		strict{T: t}.Skip(err)
	}
	return dir
}

// images: the variable IMAGES becomes the path of an OCI layout with the tags busybox, debian, nginx, redis,
// postgres, python, and many (an index of platforms).
func verbImages(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: images")
	}
	dir, err := testImages()
	ts.Check(err)
	ts.Setenv("IMAGES", dir)
}

const registryUsage = "usage: registry start NAME [tls] [auth USER:PASSWORD], or push NAME IMAGE REPOSITORY:TAG, or stop|freeze|thaw NAME"

// registrySignals are what happens to registries on bad days.
var registrySignals = map[string]syscall.Signal{
	"stop":   syscall.SIGKILL,
	"freeze": syscall.SIGSTOP,
	"thaw":   syscall.SIGCONT,
}

// registry start NAME [tls] [auth USER:PASSWORD]: Debian's registry, empty, at 127.0.0.1:PORT, which the variable
// NAME becomes; NAME.crt is whom to trust with tls. After a stop it starts with the same address and contents.
//
// registry push NAME IMAGE REPOSITORY:TAG: one of the images, with all its platforms.
//
// registry stop|freeze|thaw NAME: it is killed; it goes on to accept connections, but not to answer; it answers.
func verbRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf(registryUsage)
	}
	verb, name, rest := args[0], args[1], args[2:]
	key := filepath.Join(ts.Getenv("WORK"), name)
	found, running := registries.Load(key)
	signal, isSignal := registrySignals[verb]
	switch {
	case verb == "start" && !running:
		r := &registry{dir: ts.Getenv("WORK"), name: name, address: ts.Getenv(name)}
		if !r.parse(rest) {
			ts.Fatalf(registryUsage)
		}
		ts.Check(r.start())
		registries.Store(key, r)
		ts.Defer(func() {
			registries.Delete(key)
			r.end()
		})
		ts.Setenv(name, r.address)
	case !running:
		ts.Fatalf("no registry %s runs", name)
	case verb == "push" && len(rest) == 2:
		dir, err := testImages()
		ts.Check(err)
		ts.Check(found.(*registry).push("oci:"+dir+":"+rest[0], rest[1]))
	case isSignal && len(rest) == 0:
		r := found.(*registry)
		ts.Check(r.cmd.Process.Signal(signal))
		if signal == syscall.SIGKILL {
			registries.Delete(key)
			r.end()
		}
	default:
		ts.Fatalf(registryUsage)
	}
}

// registries are those that run, by the session's folder and their name.
var registries sync.Map

// registry is one of Debian's docker-registry. Its files are in dir.
type registry struct {
	dir, name string
	address   string // to listen at, or nothing for a free port
	tls       bool
	user      string // USER:PASSWORD
	cmd       *exec.Cmd
	ended     chan struct{}
}

func (r *registry) parse(args []string) bool {
	for ; len(args) > 0; args = args[1:] {
		switch {
		case args[0] == "tls":
			r.tls = true
		case args[0] == "auth" && len(args) > 1 && strings.Contains(args[1], ":"):
			args = args[1:]
			r.user = args[0]
		default:
			return false
		}
	}
	return true
}

// file is one of the registry's own, which a session doesn't see.
func (r *registry) file(kind string) string { return filepath.Join(r.dir, "."+r.name+"."+kind) }

func (r *registry) certificate() string { return filepath.Join(r.dir, r.name+".crt") }

// start returns when the registry listens. It ends with end, or with this process.
func (r *registry) start() error {
	if err := r.configure(); err != nil {
		return err
	}
	r.cmd = exec.Command("docker-registry", "serve", r.file("yml"))
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		return err
	}
	r.ended = make(chan struct{})
	listens := make(chan string, 1)
	var log bytes.Buffer // to be read when it has ended
	go func() {
		defer close(r.ended)
		runtime.LockOSThread() // Pdeathsig is the thread's
		defer runtime.UnlockOSThread()
		if err := r.cmd.Start(); err != nil {
			fmt.Fprintln(&log, err)
			return
		}
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if found := registryListens.FindSubmatch(lines.Bytes()); found != nil {
				listens <- string(found[1])
			}
			log.Write(append(lines.Bytes(), '\n'))
		}
		_ = r.cmd.Wait() // it is killed
	}()
	select {
	case r.address = <-listens:
		return nil
	case <-r.ended:
		return fmt.Errorf("docker-registry (Debian's package of that name) did not start: %s", log.Bytes())
	case <-time.After(20 * time.Second):
		r.end()
		return fmt.Errorf("docker-registry did not listen within 20 s: %s", log.Bytes())
	}
}

var registryListens = regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)

func (r *registry) end() {
	if r.cmd.Process != nil {
		_ = r.cmd.Process.Kill() // it may have ended
	}
	<-r.ended
}

func (r *registry) configure() error {
	address := r.address
	if address == "" {
		address = "127.0.0.1:0" // it says which port it has got
	}
	var conf strings.Builder
	fmt.Fprint(&conf, "version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\n")
	fmt.Fprintf(&conf, "storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\n", r.file("storage"))
	fmt.Fprintf(&conf, "http:\n  addr: %q\n  secret: podsh\n", address)
	if r.tls {
		if err := r.certify(); err != nil {
			return err
		}
		fmt.Fprintf(&conf, "  tls: {certificate: %q, key: %q}\n", r.certificate(), r.file("key"))
	}
	if r.user != "" {
		user, password, _ := strings.Cut(r.user, ":")
		// Perl is on every Debian, and has the crypt(3) of libc, which knows bcrypt.
		hash, err := exec.Command("perl", "-e", `print crypt($ARGV[0], q($2y$04$podshpodshpodshpodshpu))`, password).Output()
		if err != nil || !bytes.HasPrefix(hash, []byte("$2y$04$")) {
			return fmt.Errorf("bcrypt by perl: %w: %q", err, hash)
		}
		if err := os.WriteFile(r.file("htpasswd"), fmt.Appendf(nil, "%s:%s\n", user, hash), 0o600); err != nil {
			return err
		}
		fmt.Fprintf(&conf, "auth: {htpasswd: {realm: podsh, path: %q}}\n", r.file("htpasswd"))
	}
	return os.WriteFile(r.file("yml"), []byte(conf.String()), 0o600)
}

// certify makes a certificate that vouches for itself, and its key, once.
func (r *registry) certify() error {
	if exists(r.certificate()) {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: "podsh test " + r.name},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(r.file("key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(r.certificate(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o644)
}

// push copies an image, as skopeo names it, with all its platforms.
func (r *registry) push(from, to string) error {
	args := []string{"--insecure-policy", "--tmpdir", r.dir, "copy", "--quiet", "--all", "--dest-tls-verify=false"}
	if r.user != "" {
		args = append(args, "--dest-creds", r.user)
	}
	cmd := exec.Command("skopeo", append(args, from, "docker://"+r.address+"/"+to)...)
	// What is in /run/containers may be root's alone.
	cmd.Env = append(os.Environ(), "REGISTRY_AUTH_FILE="+r.file("auth.json"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("skopeo copy %s to %s: %w: %s", from, to, err, out)
	}
	return nil
}

// cut NAME REGISTRY BYTES [TIMES]: a bad line to the registry, at 127.0.0.1:PORT, which the variable NAME becomes.
// A connection on which more than BYTES of answers come ends after BYTES, but only the first time, or so many times.
func verbCut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 4 {
		ts.Fatalf("usage: cut NAME REGISTRY BYTES [TIMES]")
	}
	after, err := strconv.ParseInt(args[2], 10, 64)
	ts.Check(err)
	times := 1
	if len(args) > 3 {
		times, err = strconv.Atoi(args[3])
		ts.Check(err)
	}
	to := ts.Getenv(args[1])
	if to == "" {
		ts.Fatalf("no registry %s was started", args[1])
	}
	line, err := startLine(to, after, times)
	ts.Check(err)
	ts.Defer(line.end)
	ts.Setenv(args[0], line.listener.Addr().String())
}

// line is a proxy that loses connections.
type line struct {
	listener net.Listener
	to       string
	after    int64
	times    atomic.Int64 // still to come
	workers  sync.WaitGroup
	mu       sync.Mutex
	closed   bool
	open     []net.Conn
}

func startLine(to string, after int64, times int) (*line, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &line{listener: listener, to: to, after: after}
	l.times.Store(int64(times))
	l.workers.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // closed
			}
			l.workers.Go(func() { l.serve(client) })
		}
	})
	return l, nil
}

func (l *line) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", l.to)
	if err != nil {
		return // what the client sees of a registry that is gone
	}
	defer server.Close()
	if !l.keep(client, server) {
		return
	}
	l.workers.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.(*net.TCPConn).CloseWrite()
	})
	if n, err := io.CopyN(client, server, l.after); err != nil || n < l.after {
		return
	}
	// Whether there is more is known when it comes: what is cut is no whole answer.
	more := make([]byte, 1)
	if _, err := io.ReadFull(server, more); err != nil || l.times.Add(-1) >= 0 {
		return
	}
	if _, err := client.Write(more); err == nil {
		_, _ = io.Copy(client, server)
	}
}

// keep remembers connections for end; false after it.
func (l *line) keep(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = append(l.open, conns...)
	return !l.closed
}

func (l *line) end() {
	l.listener.Close()
	l.mu.Lock()
	l.closed = true
	for _, conn := range l.open {
		conn.Close()
	}
	l.mu.Unlock()
	l.workers.Wait()
}

// TestRegistryFixture is a session of these verbs alone, with skopeo as the client.
func TestRegistryFixture(t *testing.T) {
	needImages(t)
	for _, program := range []string{"skopeo", "docker-registry", "perl"} {
		if _, err := exec.LookPath(program); err != nil {
			strict{T: t}.Skip(err)
		}
	}
	file := filepath.Join(t.TempDir(), "fixture.txtar")
	if err := os.WriteFile(file, []byte(fixtureSession), 0o644); err != nil {
		t.Fatal(err)
	}
	testscript.RunT(strict{T: t}, testscript.Params{Files: []string{file}, Cmds: imageVerbs, Setup: func(env *testscript.Env) error {
		env.Setenv("HOME", env.WorkDir)
		env.Setenv("REGISTRY_AUTH_FILE", filepath.Join(env.WorkDir, ".auth.json")) // there is none
		return nil
	}})
}

const fixtureSession = `
images
exists $IMAGES/index.json
registry start PLAIN
registry push PLAIN busybox some/busybox:1
registry push PLAIN many many:1
exec skopeo inspect --tls-verify=false --config docker://$PLAIN/some/busybox:1
stdout '"sh"'
exec skopeo inspect --tls-verify=false --raw docker://$PLAIN/many:1
stdout '"variant": "v7"'
exec skopeo --override-arch arm --override-variant v7 inspect --tls-verify=false --config docker://$PLAIN/many:1
stdout '"architecture": "arm"'

# Over a bad line the first two pulls fail, and what is pushed over it gets through.
cut WEAK PLAIN 300000 2
! exec skopeo --insecure-policy copy --src-tls-verify=false docker://$WEAK/some/busybox:1 dir:first
! exec skopeo --insecure-policy copy --src-tls-verify=false docker://$WEAK/some/busybox:1 dir:second
exec skopeo --insecure-policy copy --src-tls-verify=false docker://$WEAK/some/busybox:1 dir:third
exec skopeo --insecure-policy copy --dest-tls-verify=false dir:third docker://$WEAK/another:1
exec skopeo inspect --tls-verify=false --config docker://$PLAIN/another:1

# With tls and a password only those who trust it, and know it, are served.
registry start SAFE tls auth ann:secret
registry push SAFE busybox busybox:1
mkdir certificates
cp SAFE.crt certificates/ca.crt
exec skopeo inspect --cert-dir certificates --creds ann:secret --config docker://$SAFE/busybox:1
! exec skopeo inspect --cert-dir certificates --creds ann:wrong --config docker://$SAFE/busybox:1
stderr unauthorized
! exec skopeo inspect --creds ann:secret --config docker://$SAFE/busybox:1
stderr x509

# It hangs, goes on, is gone, and comes back with what it had.
registry freeze PLAIN
! exec timeout 0.5 skopeo inspect --tls-verify=false --config docker://$PLAIN/another:1
registry thaw PLAIN
exec skopeo inspect --tls-verify=false --config docker://$PLAIN/another:1
registry stop PLAIN
! exec skopeo inspect --tls-verify=false --config docker://$PLAIN/another:1
stderr refused
registry start PLAIN
exec skopeo inspect --tls-verify=false --config docker://$PLAIN/another:1
`
