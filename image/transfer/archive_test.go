package transfer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/zstd"

	"github.com/podsh/podsh/image"
)

const (
	topName   = "docker.io/library/web:latest"
	webName   = "docker.io/library/web:1"
	otherName = "localhost:5000/team/other:latest"
)

// tarOf is a tar with one file.
func tarOf(t *testing.T, name, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))})
	if err == nil {
		_, err = w.Write([]byte(text))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstdOf(t *testing.T, text []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(text, nil)
}

func gzipOf(t *testing.T, text []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func importTar(t *testing.T, store *image.Store, text []byte, names ...string) (*image.Image, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "root.tar")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	images, err := Import(context.Background(), store, &image.Request{File: file, Names: names, Platform: "linux/amd64",
		Config: &image.Config{Cmd: []string{"/bin/sh"}, Env: []string{"A=b"}}}, (&heard{}).tell)
	if err != nil {
		return nil, err
	}
	return images[0], nil
}

func TestImport(t *testing.T) {
	plain := tarOf(t, "etc/hello", "hello")
	diffID := fmt.Sprintf("sha256:%x", sha256.Sum256(plain))
	for _, c := range []struct {
		name      string
		text      []byte
		mediaType string
		keeps     bool // the blob is the file
	}{
		{"plain", plain, ociGzip, false},
		{"gzip", gzipOf(t, plain), ociGzip, true},
		{"zstd", zstdOf(t, plain), ociTar + "+zstd", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := newStore(t)
			img, err := importTar(t, store, c.text, webName)
			if err != nil {
				t.Fatal(err)
			}
			if len(img.Layers) != 1 || img.Layers[0].DiffID != diffID || img.Layers[0].MediaType != c.mediaType || img.Config.Cmd[0] != "/bin/sh" {
				t.Errorf("%+v", img)
			}
			blob, err := os.ReadFile(store.BlobPath(img.Layers[0].Digest))
			if err != nil || int64(len(blob)) != img.Layers[0].Size || digestOf(blob) != img.Layers[0].Digest {
				t.Fatal("blob: ", len(blob), err)
			}
			if bytes.Equal(blob, c.text) != c.keeps {
				t.Error("is the blob what was given: ", !c.keeps)
			}
			r, _, err := decompressed(bytes.NewReader(blob))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
				t.Error("the layer has other bytes: ", err)
			}
			if found, err := store.Find("web:1"); err != nil || found.Digest != img.Digest {
				t.Error(err)
			}
		})
	}
}

// TestImportErrors: what is no tar leaves nothing.
func TestImportErrors(t *testing.T) {
	plain := tarOf(t, "etc/hello", "hello")
	for _, c := range []struct {
		name, words string
		text        []byte
	}{
		{"cut off", "ends in the middle", plain[:514]},
		{"gzip, cut off", "ends in the middle", gzipOf(t, plain)[:80]},
		{"no tar", "is no tar", []byte(strings.Repeat("hello\n", 200))},
		{"empty", "is no tar", nil},
		{"xz", "is no tar", []byte("\xfd7zXZ\x00\x00\x00")},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := newStore(t)
			_, err := importTar(t, store, c.text, webName)
			wantError(t, err, c.words)
			for _, dir := range []string{"partial", "blobs/sha256"} {
				if left, _ := os.ReadDir(filepath.Join(store.Path, dir)); len(left) > 0 {
					t.Errorf("left in %s: %v", dir, left)
				}
			}
		})
	}
}

// TestDockerArchive reads what others write: go-containerregistry, with compressed layers, and all that in gzip.
func TestDockerArchive(t *testing.T) {
	img := randomImage(t, 10_000, 2, "amd64")
	id, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("web:1")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "web.tar")
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	packed := file + ".gz"
	if err := os.WriteFile(packed, gzipOf(t, text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{"docker-archive:" + file, "oci-archive:" + packed} {
		store := newStore(t)
		got, _, err := pull(t, store, source)
		if err != nil || got.ID != id.String() || got.Names[0] != webName || len(got.Layers) != 2 {
			t.Errorf("%s: %+v %v", source, got, err)
		}
		if left, _ := os.ReadDir(filepath.Join(store.Path, "partial")); len(left) > 0 {
			t.Errorf("left in partial: %v", left)
		}
	}
	for _, c := range []struct{ source, words string }{
		{"docker-archive:" + file + ".nowhere", "no archive"},
		{"oci:" + file + ".nowhere", "no folder"},
		{"oci:" + t.TempDir(), "has no index.json"},
		{"docker-archive:" + writeFile(t, text[:len(text)/2]), "is no archive of images"},
		{"docker-archive:" + writeFile(t, tarOf(t, "etc/passwd", "root")), "is no archive of images"},
		{"docker-archive:" + writeFile(t, bytes.Replace(text, []byte(strings.TrimPrefix(id.String(), "sha256:")), []byte(strings.Repeat("0", 64)), 1)), ""},
	} {
		_, _, err := pull(t, newStore(t), c.source)
		if c.words == "" {
			if err == nil {
				t.Errorf("%s: no error", c.source)
			}
			continue
		}
		wantError(t, err, c.words)
	}
}

func writeFile(t *testing.T, text []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestLinks: an archive of an older docker has links in place of layers that are there already, and one that leads in
// a circle leads nowhere.
func TestLinks(t *testing.T) {
	a := &archive{entries: map[string]entry{
		"a/layer.tar": {offset: 512, size: 5},
		"b/layer.tar": {link: "a/layer.tar"},
		"x":           {link: "y"},
		"y":           {link: "x"},
	}}
	if r, _, err := a.file("./b/layer.tar"); err != nil || r.Size() != 5 {
		t.Error(err)
	}
	for _, name := range []string{"x", "nowhere", "../a/layer.tar"} {
		if _, _, err := a.file(name); err == nil {
			t.Errorf("%s is there", name)
		}
	}
}
