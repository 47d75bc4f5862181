package transfer

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"
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
