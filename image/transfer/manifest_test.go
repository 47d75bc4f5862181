package transfer

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/podsh/podsh/image"
)

// TestManifests: what is no image is refused, by name.
func TestManifests(t *testing.T) {
	b := startBroken(t, randomImage(t, 100, 1, "amd64"))
	b.serve = b.whole
	good := string(b.manifest)
	for _, c := range []struct{ manifest, words string }{
		{`{"schemaVersion":1,"name":"x"}`, "schema 1"},
		{`{"schemaVersion":2}`, `malformed digest "" of its configuration`},
		{`hello`, "malformed manifest"},
		{strings.Repeat(" ", image.MaxDocument+1), "more than 4 MB"},
		{strings.Replace(good, configs[1], "application/vnd.cncf.helm.config.v1+json", 1), `no image to run, but of type "application/vnd.cncf.helm.config.v1+json"`},
		{strings.Replace(good, dockerGzip, ociGzip+"+encrypted", 1), "layer 1 is encrypted"},
		{strings.Replace(good, dockerGzip, "application/x-squashfs", 1), `layer 1 is of an unknown type: "application/x-squashfs"`},
		{strings.Replace(good, b.digest, "sha256:../../../../etc/passwd", 1), "malformed digest"},
		{strings.Replace(good, b.digest, "sha512:"+strings.Repeat("0", 128), 1), "the digest of layer 1 is one of sha512, and podsh knows only sha256"},
		{strings.Replace(good, `"layers":[`, `"layers":[{"mediaType":"`+dockerGzip+`","size":1,"digest":"sha256:`+strings.Repeat("0", 64)+`"},`, 1), "the manifest has 2 layers, and the configuration 1"},
		{strings.Replace(good, `"size":`, `"size":-`, 1), "a configuration of -"},
		{strings.Replace(good, `"layers":[{`, `"layers":[{"size":9223372036854775807,"x":{`, 1), "malformed manifest"},
	} {
		b.manifest = []byte(c.manifest)
		store := newStore(t)
		_, _, err := pull(t, store, b.host+"/x")
		if err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%.200s: %v, not %s", c.manifest, err, c.words)
		}
		if images, _ := store.List(); len(images) > 0 {
			t.Errorf("%.200s: taken in", c.manifest)
		}
	}
}

// TestForeign: a layer that a registry may not have is taken where it has it, and where it has not that is said.
func TestForeign(t *testing.T) {
	b := startBroken(t, randomImage(t, 100, 1, "amd64"))
	for _, kind := range []string{"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", ociForeignTar + "+gzip"} {
		manifest := b.manifest
		b.manifest = bytes.Replace(manifest, []byte(dockerGzip), []byte(kind), 1)
		b.serve = b.whole
		img, _, err := pull(t, newStore(t), b.host+"/x")
		if err != nil || img.Layers[0].MediaType != ociForeignTar+"+gzip" {
			t.Error(kind, img, err)
		}
		b.serve = http.NotFound
		_, _, err = pull(t, newStore(t), b.host+"/x")
		wantError(t, err, "layer "+b.digest+" is not there: by its type, \""+ociForeignTar)
		b.manifest = manifest
	}
}

const dockerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"

// TestWrongManifest: a registry that sends another manifest than the one that was asked for.
func TestWrongManifest(t *testing.T) {
	b := startBroken(t, randomImage(t, 100, 1, "amd64"))
	b.serve = b.whole
	_, _, err := pull(t, newStore(t), b.host+"/x@sha256:"+strings.Repeat("0", 64))
	if err == nil || !strings.Contains(err.Error(), "wrong digest: sha256:000") {
		t.Error(err)
	}
}

// TestNoRoom: what the disk can't hold is refused before it is downloaded.
func TestNoRoom(t *testing.T) {
	b := startBroken(t, randomImage(t, 100, 1, "amd64"))
	b.serve = b.whole
	b.manifest = bytes.Replace(b.manifest, fmt.Appendf(nil, `"size":%d,"digest":"%s"`, len(b.layer), b.digest), fmt.Appendf(nil, `"size":%d,"digest":"%s"`, 1<<40, b.digest), 1)
	_, _, err := pull(t, newStore(t), b.host+"/x")
	wantError(t, err, "the disk is full")
	if b.asked.Load() > 0 {
		t.Error("it was downloaded all the same")
	}
}
