package transfer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// trusting trusts a certificate.
func trusting(t *testing.T, file string) *tls.Config {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return &tls.Config{RootCAs: pool}
}

// secretBcrypt is the password "secret", as htpasswd -B writes it.
const secretBcrypt = "$2b$04$BTOIprzP24KMeY2TRw.vmOgFBQALPVAdo4IbFllyppCsY5jHkJNxq"

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

// hence is when certificates of tests end.
var hence = time.Now().Add(time.Hour)

// pushTrusting pushes an image to a registry with a certificate.
func pushTrusting(t *testing.T, ref, certificate string) {
	t.Helper()
	transport := newTransport()
	transport.TLSClientConfig = trusting(t, certificate)
	push(t, ref, randomImage(t, 100, 1, "amd64"), remote.WithTransport(transport))
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
	file, key := certificate(t, hence)
	r := startRegistry(t, fmt.Sprintf("  tls: {certificate: %s, key: %s}\n", file, key), "")
	pushTrusting(t, r.host+"/web", file)

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
			if c.key != r.host { // authn asks podman's files, too, where there is none of docker's
				docker := t.TempDir()
				t.Setenv("DOCKER_CONFIG", docker)
				if err := os.WriteFile(filepath.Join(docker, "config.json"), []byte(`{"auths":{}}`), 0o600); err != nil {
					t.Fatal(err)
				}
			}
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
