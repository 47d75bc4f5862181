package command

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// layout DIR TAG LAYER...: one more image in an OCI layout, made here, so that it can be as others make them. A LAYER is
// [TYPE=]FILE, a tar, or FOLDER/ with many; one that ends in .gz, .xz, .bz2 or .zst is compressed. It runs sh, or what the variable CONFIG says
// in JSON.
func verbLayout(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: layout DIR TAG [TYPE=]LAYER...")
	}
	l := &testLayout{ts.MkAbs(args[0])}
	ts.Check(os.MkdirAll(filepath.Join(l.dir, "blobs", "sha256"), 0o755))
	ts.Check(os.WriteFile(filepath.Join(l.dir, "oci-layout"), []byte(`{"imageLayoutVersion": "1.0.0"}`), 0o644))
	config := `{"Cmd": ["sh"], "Env": ["PATH=/bin"]}`
	if text := ts.Getenv("CONFIG"); text != "" {
		config = text
	}
	ts.Check(l.image(args[1], config, ts.MkAbs, filesOf(ts, args[2:])))
}

// image makes an image of layers, each [TYPE=]FILE.
func (l *testLayout) image(tag, config string, abs func(string) string, files []string) error {
	layers, diffIDs := []testBlob{}, []string{}
	for _, file := range files {
		layer, diffID, err := l.layer(abs, file)
		if err != nil {
			return err
		}
		layers, diffIDs = append(layers, layer), append(diffIDs, diffID)
	}
	described, err := l.json("application/vnd.oci.image.config.v1+json", map[string]any{"os": "linux", "architecture": runtime.GOARCH,
		"config": json.RawMessage(config), "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}})
	if err != nil {
		return err
	}
	const kind = "application/vnd.oci.image.manifest.v1+json"
	manifest, err := l.json(kind, map[string]any{"schemaVersion": 2, "mediaType": kind, "config": described, "layers": layers})
	if err != nil {
		return err
	}
	manifest.Annotations = map[string]string{"org.opencontainers.image.ref.name": tag}
	return l.add(manifest)
}

// testLayout is the folder of an OCI layout.
type testLayout struct{ dir string }

// testBlob is a descriptor.
type testBlob struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func sha256Of(text []byte) string {
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (l *testLayout) put(kind string, text []byte) (testBlob, error) {
	b := testBlob{MediaType: kind, Digest: sha256Of(text), Size: len(text)}
	return b, os.WriteFile(filepath.Join(l.dir, "blobs", "sha256", strings.TrimPrefix(b.Digest, "sha256:")), text, 0o644)
}

func (l *testLayout) json(kind string, value any) (testBlob, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return testBlob{}, err
	}
	return l.put(kind, text)
}

// compressors are programs by the end of a file's name, and what they are called in media types.
var compressors = map[string]struct{ program, kind string }{
	".gz": {"gzip", "+gzip"}, ".xz": {"xz", "+xz"}, ".bz2": {"bzip2", "+bzip2"}, ".zst": {"zstd", "+zstd"},
}

func (l *testLayout) layer(abs func(string) string, arg string) (testBlob, string, error) {
	kind, file, given := strings.Cut(arg, "=")
	if !given {
		file = arg
	}
	text, err := os.ReadFile(abs(file))
	if err != nil {
		return testBlob{}, "", err
	}
	plain, c := text, compressors[filepath.Ext(file)]
	if c.program != "" {
		cmd := exec.Command(c.program, "-dc")
		cmd.Stdin = bytes.NewReader(text)
		if plain, err = cmd.Output(); err != nil {
			return testBlob{}, "", err
		}
	}
	if !given {
		kind = "application/vnd.oci.image.layer.v1.tar" + c.kind
	}
	b, err := l.put(kind, text)
	return b, sha256Of(plain), err
}

// add enters an image in index.json.
func (l *testLayout) add(image testBlob) error {
	file := filepath.Join(l.dir, "index.json")
	index := struct {
		SchemaVersion int        `json:"schemaVersion"`
		Manifests     []testBlob `json:"manifests"`
	}{SchemaVersion: 2}
	if text, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(text, &index); err != nil {
			return err
		}
	}
	index.Manifests = append(index.Manifests, image)
	text, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// filesOf puts the files of folders in their place.
func filesOf(ts *testscript.TestScript, args []string) []string {
	var all []string
	for _, arg := range args {
		if !strings.HasSuffix(arg, "/") {
			all = append(all, arg)
			continue
		}
		files, err := filepath.Glob(filepath.Join(ts.MkAbs(arg), "*"))
		ts.Check(err)
		all = append(all, files...)
	}
	return all
}

// tarOfFolder is a layer with a folder in it.
func tarOfFolder(t *testing.T, name string) []byte {
	t.Helper()
	var text bytes.Buffer
	w := tar.NewWriter(&text)
	if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}), w.Close()); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}
