package registries

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
)

// certificateFolders are where docker and podman have what is to be trusted of a registry, each in a folder HOST[:PORT]:
// containers-certs.d(5), and "Verify repository client with certificates" of docker's manual.
func certificateFolders() []string {
	folders := []string{"/etc/containers/certs.d", "/etc/docker/certs.d"}
	if config, err := os.UserConfigDir(); err == nil {
		folders = append([]string{filepath.Join(config, "containers", "certs.d"), filepath.Join(config, "docker", "certs.d")}, folders...)
	}
	return folders
}

// absent says that there is no such file, and maybe no such folder.
func absent(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }

// Trust is how a registry is known by TLS, and how it knows us: by the first folder that there is for it, else as all
// of this machine are.
func Trust(host string) (*tls.Config, error) {
	for _, all := range certificateFolders() {
		folder := filepath.Join(all, host)
		entries, err := os.ReadDir(folder)
		if absent(err) {
			continue
		}
		if err != nil {
			return nil, image.Fail(err, "may you read it?", "certificates of registry %q: %v", host, err)
		}
		config := &tls.Config{}
		for _, entry := range entries {
			if err := addCertificate(config, filepath.Join(folder, entry.Name())); err != nil {
				return nil, image.Fail(err, "HOST.crt is whom to trust, HOST.cert and HOST.key are who you are, all in PEM", "certificates of registry %q: %v", host, err)
			}
		}
		return config, nil
	}
	return nil, nil
}

// addCertificate takes in one file: .crt is whom to trust, .cert who we are, with a .key beside it.
func addCertificate(config *tls.Config, file string) error {
	switch filepath.Ext(file) {
	case ".crt":
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if config.RootCAs == nil {
			if config.RootCAs, err = x509.SystemCertPool(); err != nil {
				return err
			}
		}
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("there is no certificate in %s", file)
		}
	case ".cert":
		pair, err := tls.LoadX509KeyPair(file, strings.TrimSuffix(file, ".cert")+".key")
		if err != nil {
			return err
		}
		config.Certificates = append(config.Certificates, pair)
	}
	return nil
}
