package transfer

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/podsh/podsh/image"
)

// newConfig is what is written for an image that is made here, image-spec "config.md".
type newConfig struct {
	Created      time.Time     `json:"created"`
	Architecture string        `json:"architecture"`
	OS           string        `json:"os"`
	Variant      string        `json:"variant,omitempty"`
	Config       *image.Config `json:"config"`
	RootFS       struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []image.History `json:"history"`
}

// Import makes an image of a tar of a root file system.
func Import(ctx context.Context, store *image.Store, request *image.Request, tell func(image.Event)) ([]*image.Image, error) {
	w, err := parsePlatform(request.Platform)
	if err != nil {
		return nil, err
	}
	done, err := store.Bringing()
	if err != nil {
		return nil, err
	}
	defer done()
	file, title := os.Stdin, "standard input"
	if request.File != "-" {
		title = request.File
		file, err = os.Open(request.File)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, image.Fail(err, "is the path right?", "no file %q", title)
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", title, innermostPath(err))
		}
		defer file.Close()
	}
	layer, err := importLayer(ctx, store, file)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, explainImport(title, err)
	}
	tell(image.Event{Blob: layer.Digest, Done: layer.Size, Size: layer.Size, Ready: true})
	created := time.Now().UTC()
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() { // as old as the file: the same makes the same image
		created = info.ModTime().UTC()
	}
	c := newConfig{Created: created, Architecture: w.Architecture, OS: w.OS, Variant: w.Variant, Config: request.Config}
	if c.Config == nil {
		c.Config = &image.Config{}
	}
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{layer.DiffID}
	c.History = []image.History{{Created: c.Created, CreatedBy: "podsh image import " + filepath.Base(title)}}
	img, err := addMade(store, &c, layer, request.Names)
	if err != nil {
		return nil, inWords(err)
	}
	return []*image.Image{img}, nil
}

func explainImport(title string, err error) error {
	switch {
	case hinted(err), is[*diskError](err):
		return inWords(err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return image.Fail(err, "is it whole?", "%q ends in the middle", title)
	}
	return image.Fail(err, "it takes a tar, plain or compressed by gzip, zstd, xz or bzip2", "%q is no tar of a root file system: %v", title, err)
}

// importLayer writes a layer into the store. What is not compressed as layers are is, fast.
func importLayer(ctx context.Context, store *image.Store, r io.Reader) (image.Layer, error) {
	blob, err := os.CreateTemp(store.Partial(), "import-")
	if err != nil {
		return image.Layer{}, &diskError{err}
	}
	defer blob.Close()
	// Whoever waits for standard input is ended without coming back here.
	defer context.AfterFunc(ctx, func() { os.Remove(blob.Name()) })()
	l := &layerWriter{blob: blob, digest: sha256.New(), diffID: sha256.New()}
	layer, err := l.write(&interruptible{ctx, r})
	if err == nil {
		if err = blob.Sync(); err == nil {
			err = os.Rename(blob.Name(), store.BlobPath(layer.Digest))
		}
		if err != nil {
			err = &diskError{err}
		}
	}
	if err != nil {
		os.Remove(blob.Name())
	}
	return layer, err
}

// layerWriter writes a layer, and computes both of its digests meanwhile.
type layerWriter struct {
	blob           *os.File
	size           int64
	digest, diffID hash.Hash
}

func (l *layerWriter) Write(p []byte) (int, error) {
	n, err := diskWriter{l.blob}.Write(p)
	l.digest.Write(p[:n])
	l.size += int64(n)
	return n, err
}

func (l *layerWriter) write(r io.Reader) (image.Layer, error) {
	// What is compressed is kept as it is: it is copied while it is read.
	raw := &optionalTee{r: r}
	plain, kind, err := decompressed(raw)
	if err != nil {
		return image.Layer{}, err
	}
	defer plain.Close()
	layer := image.Layer{MediaType: ociGzip}
	if kind == "gzip" || kind == "zstd" { // what else reads layers knows no other
		layer.MediaType = ociTar + "+" + kind
		err = raw.start(l)
		if err == nil {
			err = readTar(io.TeeReader(plain, l.diffID))
		}
	} else if err = raw.start(io.Discard); err == nil {
		packed, _ := gzip.NewWriterLevel(l, gzip.BestSpeed) // the level is right
		err = readTar(io.TeeReader(plain, io.MultiWriter(l.diffID, packed)))
		err = errors.Join(err, packed.Close())
	}
	layer.Size = l.size
	layer.Digest = "sha256:" + hex.EncodeToString(l.digest.Sum(nil))
	layer.DiffID = "sha256:" + hex.EncodeToString(l.diffID.Sum(nil))
	return layer, err
}

// optionalTee copies what is read, from the first byte on, once somebody wants that.
type optionalTee struct {
	r      io.Reader
	before []byte
	w      io.Writer
}

func (t *optionalTee) start(w io.Writer) error {
	t.w = w
	_, err := w.Write(t.before)
	t.before = nil
	return err
}

func (t *optionalTee) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if t.w == nil {
		t.before = append(t.before, p[:n]...)
	} else if _, err := t.w.Write(p[:n]); err != nil {
		return n, err
	}
	return n, err
}

// readTar reads a tar to its end, and what follows it.
func readTar(r io.Reader) error {
	entries := 0
	for t := tar.NewReader(r); ; entries++ {
		_, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if entries == 0 {
		return errors.New("it is empty")
	}
	_, err := io.Copy(io.Discard, r)
	return err
}

// addMade enters an image that was made here.
func addMade(store *image.Store, c *newConfig, layer image.Layer, names []string) (*image.Image, error) {
	config, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	m := newManifest{2, ociManifest, image.Descriptor{MediaType: ociConfig, Digest: digestOf(config), Size: int64(len(config))},
		[]image.Descriptor{{MediaType: layer.MediaType, Digest: layer.Digest, Size: layer.Size}}}
	text, d, err := m.encode()
	if err != nil {
		return nil, err
	}
	if err := putBlob(store, m.Config.Digest, config); err != nil {
		return nil, err
	}
	if err := putBlob(store, d.Digest, text); err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return store.Add(d, "", image.Origin{})
	}
	var img *image.Image
	for _, name := range names {
		if img, err = store.Add(d, name, image.Origin{}); err != nil {
			return nil, err
		}
	}
	return img, nil
}
