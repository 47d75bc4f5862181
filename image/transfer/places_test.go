package transfer

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podsh/podsh/image"
)

// write writes a file below the folder of the user's settings, which is a new one for the test.
func writeSettings(t *testing.T, name, format string, args ...any) {
	t.Helper()
	if os.Getenv("XDG_CONFIG_HOME") == "" {
		t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	}
	file := filepath.Join(os.Getenv("XDG_CONFIG_HOME"), name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, fmt.Appendf(nil, format, args...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// open lets everything through; only counts.
func open(*front, int, http.ResponseWriter, *http.Request) bool { return false }

func closed(_ *front, _ int, w http.ResponseWriter, _ *http.Request) bool {
	w.WriteHeader(http.StatusBadRequest)
	return true
}

func lacking(_ *front, _ int, w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Path == "/v2/" {
		return false
	}
	w.WriteHeader(http.StatusNotFound)
	return true
}

// TestPlaces: where an image is looked for, as registries.conf and daemon.json have it. It is called as it was asked for.
func TestPlaces(t *testing.T) {
	one, two, bad, none, nope := startFront(t, open), startFront(t, open), startFront(t, closed), startFront(t, lacking), startFront(t, lacking)
	for _, c := range []struct {
		name     string
		settings string
		daemon   string
		source   string
		called   string   // "" means that it fails
		words    []string // of the error, or of the warning
		asked    string   // the path of what was asked for at one
	}{
		{"another place", "[[registry]]\nprefix='moved.test'\nlocation='ONE'\n", "", "moved.test/team/web:2", "moved.test/team/web:2", nil, "/v2/team/web/manifests/2"},
		{"another place and path", "[[registry]]\nprefix='moved.test/team'\nlocation='ONE/other'\n[[registry]]\nprefix='moved.test'\nlocation='BAD'\n", "",
			"moved.test/team/web:2", "moved.test/team/web:2", nil, "/v2/other/web/manifests/2"},
		{"not another's name", "[[registry]]\nprefix='moved.test/te'\nlocation='ONE'\n", "", "moved.test/team/web", "", []string{`registry "moved.test": no such host`}, ""},
		{"any host of a domain", "[[registry]]\nprefix='*.moved.test'\n[[registry.mirror]]\nlocation='ONE/all'\n", "", "a.b.moved.test/web", "a.b.moved.test/web:latest", nil, "/v2/all/web/manifests/latest"},
		{"a mirror", "[[registry]]\nlocation='TWO'\n[[registry.mirror]]\nlocation='ONE'\n", "", "TWO/web", "TWO/web:latest", nil, "/v2/web/manifests/latest"},
		{"a mirror that is out of order", "[[registry]]\nlocation='ONE'\n[[registry.mirror]]\nlocation='BAD'\n", "", "ONE/web", "ONE/web:latest", []string{`registry "BAD"`, `"ONE" is asked next`}, "/v2/web/manifests/latest"},
		{"a mirror that has it not", "[[registry]]\nlocation='ONE'\n[[registry.mirror]]\nlocation='NONE'\n", "", "ONE/web", "ONE/web:latest", nil, "/v2/web/manifests/latest"},
		{"a mirror for digests only", "[[registry]]\nlocation='ONE'\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation='BAD'\n", "", "ONE/web", "ONE/web:latest", nil, "/v2/web/manifests/latest"},
		{"blocked", "[[registry]]\nlocation='ONE'\nblocked=true\n", "", "ONE/web", "", []string{`registry "ONE" is blocked by `, "registries.conf"}, ""},
		{"a file that is none", "[[registry\n", "", "ONE/web", "", []string{"registries.conf: "}, ""},
		{"searched", "unqualified-search-registries=['NONE','ONE']\n", "", "web:1", "ONE/web:1", nil, "/v2/web/manifests/1"},
		{"searched in vain", "unqualified-search-registries=['NONE','NOPE']\n", "", "web:1", "", []string{`has an image "web:1"`}, ""},
		{"not searched", "unqualified-search-registries=['BAD']\n", "", "ONE/web", "ONE/web:latest", nil, "/v2/web/manifests/latest"},
		{"to be told which", "unqualified-search-registries=['ONE','TWO']\nshort-name-mode='enforcing'\n", "", "web", "", []string{"wants to be told which"}, ""},
		{"an alias", "unqualified-search-registries=['BAD','TWO']\nshort-name-mode='enforcing'\n[aliases]\n'web'='ONE/team/web'\n", "", "web:3", "ONE/team/web:3", nil, "/v2/team/web/manifests/3"},
		{"docker's mirror", "", `{"registry-mirrors": ["http://ONE/"]}`, "web:1", "docker.io/library/web:1", nil, "/v2/library/web/manifests/1"},
		{"podman's counts more", "[[registry]]\nlocation='docker.io'\n[[registry.mirror]]\nlocation='ONE'\n", `{"registry-mirrors": ["http://BAD"]}`, "web:1", "docker.io/library/web:1", nil, "/v2/library/web/manifests/1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			names := strings.NewReplacer("ONE", one.host, "TWO", two.host, "BAD", bad.host, "NONE", none.host, "NOPE", nope.host)
			t.Setenv("XDG_CONFIG_HOME", t.TempDir())
			writeSettings(t, "containers/registries.conf", "%s", names.Replace(c.settings))
			if c.daemon != "" {
				writeSettings(t, "docker/daemon.json", "%s", names.Replace(c.daemon))
			}
			one.paths = nil
			store := newStore(t)
			img, h, err := pull(t, store, names.Replace(c.source))
			said := fmt.Sprint(h.warnings(), err)
			for _, words := range c.words {
				if !strings.Contains(said, names.Replace(words)) {
					t.Errorf("%s; not %q", said, names.Replace(words))
				}
			}
			if c.words == nil && len(h.warnings()) > 0 {
				t.Errorf("warnings: %q", h.warnings())
			}
			if (err == nil) != (c.called != "") || err == nil && img.Names[0] != names.Replace(c.called) {
				t.Fatal(img, err)
			}
			if asked := strings.Join(one.paths, " "); !strings.Contains(asked, c.asked) {
				t.Errorf("asked for %s, not for %s", asked, c.asked)
			}
			if _, err := store.Find(names.Replace(c.source)); err != nil && c.called != "" {
				t.Error("it is not found by the name that it was asked for: ", err)
			}
		})
	}
}

// TestFoundAnew: a short name goes to the image that was found last by it.
func TestFoundAnew(t *testing.T) {
	one, two := startFront(t, open), startFront(t, open)
	store := newStore(t)
	var last *image.Image
	for _, f := range []*front{one, two, one} {
		t.Setenv("XDG_CONFIG_HOME", t.TempDir())
		writeSettings(t, "containers/registries.conf", "unqualified-search-registries=['%s']\n", f.host)
		img, _, err := pull(t, store, "web")
		if err != nil {
			t.Fatal(err)
		}
		last = img
		if f == one {
			continue
		}
		if err := store.Tag(img, "localhost/kept:1"); err != nil {
			t.Fatal(err)
		}
	}
	if img, err := store.Find("web"); err != nil || img.ID != last.ID {
		t.Error(img, err)
	}
}

// TestInsecure: a registry that need not be known is taken with any certificate, or without TLS; others are not.
func TestInsecure(t *testing.T) {
	file, key := certificate(t, hence)
	r := startRegistry(t, fmt.Sprintf("  tls: {certificate: %s, key: %s}\n", file, key), "")
	pushTrusting(t, r.host+"/web", file)
	host := strings.Replace(r.host, "127.0.0.1", "localhost", 1) // the certificate has it not
	if _, _, err := pull(t, newStore(t), host+"/web"); !isCertificate(err) {
		t.Error(err)
	}
	for name, text := range map[string]string{
		"containers/registries.conf": "[[registry]]\nlocation='" + host + "'\ninsecure=true\n",
		"docker/daemon.json":         `{"insecure-registries": ["` + host + `"]}`,
	} {
		t.Setenv("XDG_CONFIG_HOME", t.TempDir())
		writeSettings(t, name, "%s", text)
		if _, _, err := pull(t, newStore(t), host+"/web"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCertificates: whom to trust, and who we are, where docker and podman look for it.
func TestCertificates(t *testing.T) {
	file, key := certificate(t, hence)
	r := startRegistry(t, fmt.Sprintf("  tls: {certificate: %s, key: %s, clientcas: [%[1]s]}\n", file, key), "")
	host := r.host
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	private, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"containers", "docker"} {
		t.Setenv("XDG_CONFIG_HOME", t.TempDir())
		folder := tool + "/certs.d/" + host + "/"
		writeSettings(t, folder+"ca.crt", "%s", text)
		if _, _, err := pull(t, newStore(t), host+"/web"); err == nil || isCertificate(err) || errors.Is(err, image.ErrNoImage) {
			t.Errorf("%s, not knowing who we are: %v", tool, err)
		}
		writeSettings(t, folder+"client.cert", "%s", text)
		writeSettings(t, folder+"client.key", "%s", private)
		if _, _, err := pull(t, newStore(t), host+"/web"); !errors.Is(err, image.ErrNoImage) {
			t.Errorf("%s: %v", tool, err)
		}
		writeSettings(t, folder+"ca.crt", "no certificate")
		_, _, err := pull(t, newStore(t), host+"/web")
		wantError(t, err, "certificates of registry", "there is no certificate in ")
	}
}
