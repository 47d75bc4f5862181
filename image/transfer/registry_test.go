package transfer

import (
	"context"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/podsh/podsh/image"
)

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
	checkRefused(t, r.host)
}

// checkRefused asks for what the registry of TestPull lacks.
func checkRefused(t *testing.T, host string) {
	for _, c := range []struct{ name, source, platform, words string }{
		{"no platform", "/team/web:1", "linux/riscv64", `it has no image for linux/riscv64, only for linux/amd64, linux/arm64/v8`},
		{"malformed platform", "/team/web:1", "linux", `malformed platform "linux"`},
		{"another platform", "/solo", "linux/arm64", `it has no image for linux/arm64, only for linux/amd64`},
		{"no tag", "/team/web:2", "", `has no "` + host + `/team/web:2"`},
		{"no image", "/team/wbe", "", `has no "` + host + `/team/wbe:latest"`},
		{"no digest", "/team/web@sha256:" + strings.Repeat("0", 64), "", "has no "},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Pull(context.Background(), newStore(t), &image.Request{Source: host + c.source, Platform: c.platform}, (&heard{}).tell)
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

// TestGuard: what is not encrypted goes to this machine alone.
func TestGuard(t *testing.T) {
	called := ""
	inner := roundTripper(func(r *http.Request) (*http.Response, error) { called = r.URL.Host; return nil, errPlain })
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
