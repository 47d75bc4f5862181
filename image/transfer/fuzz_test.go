package transfer

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podsh/podsh/image"
)

// fuzzed are the documents of seeds.
var fuzzed = map[string]string{
	"config": `{"os":"linux","architecture":"amd64","config":{"Cmd":["sh"],"Env":["A=b"]},"rootfs":{"type":"layers","diff_ids":["sha256:` +
		`e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}`,
	"index": `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` +
		`e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"annotations":{"org.opencontainers.image.ref.name":"a:b"},` +
		`"platform":{"os":"linux","architecture":"amd64"}}]}`,
	"docker": `[{"Config":"c.json","RepoTags":["x:y"],"Layers":["l.tar"]}]`,
}

// FuzzManifest: whatever a registry says, it is an image of the platform, or an error.
func FuzzManifest(f *testing.F) {
	for _, mediaType := range []string{"", manifests[0], manifests[1]} {
		f.Add([]byte(fuzzed["index"]), mediaType)
		f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"sha256:x","size":-1},"layers":[{}]}`), mediaType)
		f.Add([]byte(`{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}],"manifests":[null]}`), mediaType)
	}
	f.Fuzz(func(t *testing.T, text []byte, mediaType string) {
		read := func(d image.Descriptor) ([]byte, error) {
			if !image.IsDigest(d.Digest) {
				t.Errorf("%q was looked for", d.Digest)
			}
			return text, nil
		}
		w, err := parsePlatform("")
		if err != nil {
			t.Fatal(err)
		}
		found, err := w.resolve(text, mediaType, read)
		if err != nil {
			return
		}
		if err := found.convert(); err != nil {
			return
		}
		img, err := image.Parse(found.manifest, func(image.Descriptor) ([]byte, error) { return []byte(fuzzed["config"]), nil })
		if err != nil {
			return
		}
		if checkLayers(img) != nil {
			return
		}
		for _, layer := range img.Layers {
			if !image.IsDigest(layer.Digest) || !image.IsDigest(layer.DiffID) || layer.Size < 0 {
				t.Errorf("%s: layer %+v", text, layer)
			}
		}
	})
}

// FuzzArchive loads archives: of the kinds that there are, with contents and names as they come, or as raw bytes. A store
// that took one in can list its images.
func FuzzArchive(f *testing.F) {
	f.Add("raw", []byte("\x1f\x8b\x08"), []byte(""))
	f.Add("oci", []byte(fuzzed["index"]), []byte(""))
	f.Add("docker", []byte(fuzzed["docker"]), []byte(fuzzed["config"]))
	f.Add("docker", []byte(`[{"Config":"c.json","RepoTags":null,"Layers":null}]`), []byte(`{"rootfs":null}`))
	f.Add("docker", []byte(`[{"Config":"../c.json"},null]`), []byte(`null`))
	f.Add("link", []byte(fuzzed["docker"]), []byte("c.json"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, kind string, first, second []byte) {
		file := filepath.Join(dir, "archive") // the workers are processes with folders of their own
		if err := os.WriteFile(file, archiveOf(kind, first, second), 0o600); err != nil {
			t.Fatal(err)
		}
		store, err := image.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		images, err := Pull(t.Context(), store, &image.Request{Source: "docker-archive:" + file}, func(image.Event) {})
		if err != nil && strings.TrimSpace(err.Error()) == "" {
			t.Error("an error without words")
		}
		listed, lerr := store.List()
		if lerr != nil || err == nil && len(images) > 0 && len(listed) == 0 {
			t.Errorf("%s %q %q: %d images, %d listed, %v", kind, first, second, len(images), len(listed), lerr)
		}
	})
}

// archiveOf makes a tar of a kind.
func archiveOf(kind string, first, second []byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, data []byte) {
		_ = w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o600})
		_, _ = w.Write(data)
	}
	switch kind {
	case "oci":
		add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
		add("index.json", first)
		var all struct{ Manifests []image.Descriptor }
		if json.Unmarshal(first, &all) == nil {
			for _, d := range all.Manifests {
				add(blobName(d.Digest), second)
			}
		}
		add(blobName(digestOf(second)), second)
	case "docker":
		add("manifest.json", first)
		add("c.json", second)
		add("l.tar", nil)
	case "link":
		add("manifest.json", first)
		for _, name := range []string{"c.json", "l.tar"} {
			_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: string(second)})
		}
	default:
		b.Write(first)
		return b.Bytes()
	}
	_ = w.Close()
	return b.Bytes()
}
