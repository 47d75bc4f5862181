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
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

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

var registryListens = regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)
