package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/podsh/podsh/image"
)

// formats are how images are saved.
var formats = map[string]struct {
	open   func(file string) (target, error)
	docker bool // with what docker looks for
}{
	"oci":            {openTargetFolder, false},
	"oci-archive":    {openTargetTar, false},
	"docker-archive": {openTargetTar, true},
}

// target is where images are written to.
type target interface {
	write(name string, size int64, r io.Reader) error
	index() ([]byte, error) // index.json of what is there already, or nothing
	commit() error
	discard()
}

// saved is an image that is to be saved, and its names that were asked for.
type saved struct {
	*image.Image
	names      []string
	descriptor image.Descriptor
}

// saving is one Save.
type saving struct {
	store   *image.Store
	target  target
	images  []*saved
	written map[string]bool
}

// Save writes images of the store to a folder or an archive. An archive of docker's is one of OCI's as well, as
// docker writes them itself by now; so images keep their digests.
func Save(ctx context.Context, store *image.Store, request *image.Request, _ func(image.Event)) ([]*image.Image, error) {
	format, ok := formats[request.Format]
	if !ok {
		return nil, image.Fail(image.ErrInvalid, "oci, oci-archive or docker-archive", "no format %q", request.Format)
	}
	done, err := store.Bringing() // what is read here must not be removed
	if err != nil {
		return nil, err
	}
	defer done()
	s := &saving{store: store, written: map[string]bool{}}
	if err := s.choose(request.Images); err != nil {
		return nil, err
	}
	if s.target, err = format.open(request.File); err != nil {
		return nil, s.explain(request.File, err)
	}
	if err = s.write(ctx, format.docker); err == nil {
		err = s.target.commit()
	}
	if err != nil {
		s.target.discard()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, s.explain(request.File, err)
	}
	var images []*image.Image
	for _, each := range s.images {
		images = append(images, each.Image)
	}
	return images, nil
}

func (s *saving) explain(file string, err error) error {
	if hinted(err) || errors.Is(err, context.Canceled) {
		return err
	}
	if is[*diskError](err) {
		if file == "-" {
			return fmt.Errorf("standard output: %w", innermostPath(err))
		}
		err = fmt.Errorf("%q: %w", file, innermostPath(err))
	}
	return inWords(err)
}

// choose finds the images. One that is asked for by a name is saved with it, by its id without one.
func (s *saving) choose(refs []string) error {
	for _, ref := range refs {
		img, err := s.store.Find(ref)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(s.images, func(other *saved) bool { return other.Digest == img.Digest })
		if i < 0 {
			i = len(s.images)
			s.images = append(s.images, &saved{Image: img})
		}
		if name := img.NameOf(ref); name != "" && !slices.Contains(s.images[i].names, name) {
			s.images[i].names = append(s.images[i].names, name)
		}
	}
	if len(s.images) == 0 {
		return image.Fail(image.ErrInvalid, "name some", "no images are named")
	}
	return nil
}

func (s *saving) write(ctx context.Context, docker bool) error {
	legacy := docker && slices.ContainsFunc(s.images, func(i *saved) bool { return slices.ContainsFunc(i.Layers, isZstd) })
	for _, img := range s.images {
		if err := s.blobs(ctx, img, legacy); err != nil {
			return err
		}
	}
	if docker {
		if err := s.dockerManifest(legacy); err != nil {
			return err
		}
	}
	if legacy { // with an index docker would take the layers that it can't read
		return nil
	}
	return s.index()
}

// isZstd: docker reads layers of zstd only since version 23, skopeo's docker-archive does not.
func isZstd(layer image.Layer) bool { return strings.HasSuffix(layer.MediaType, "zstd") }

// blobs writes what an image consists of.
func (s *saving) blobs(ctx context.Context, img *saved, legacy bool) error {
	var err error
	if _, img.descriptor, err = s.store.Manifest(img.Image); err != nil {
		return err
	}
	digests := []string{img.ID}
	if !legacy {
		digests = []string{img.descriptor.Digest, img.ID}
	}
	for _, layer := range img.Layers {
		if legacy && isZstd(layer) {
			if err := s.plainLayer(ctx, layer); err != nil {
				return err
			}
			continue
		}
		digests = append(digests, layer.Digest)
	}
	for _, digest := range digests {
		if err := s.blob(ctx, digest); err != nil {
			return err
		}
	}
	return nil
}

func (s *saving) blob(ctx context.Context, digest string) error {
	name := blobName(digest)
	if s.written[name] {
		return nil
	}
	s.written[name] = true
	blob, err := os.Open(s.store.BlobPath(digest))
	if err != nil {
		return image.Fail(err, "pull the image once more", "blob %s: %v", digest, innermostPath(err))
	}
	defer blob.Close()
	info, err := blob.Stat()
	if err != nil {
		return err
	}
	return s.target.write(name, info.Size(), &interruptible{ctx, blob})
}

func plainName(layer image.Layer) string {
	return "layers/" + strings.TrimPrefix(layer.DiffID, "sha256:") + ".tar"
}

// plainLayer writes a layer decompressed. A tar tells the size first, so it is decompressed twice.
func (s *saving) plainLayer(ctx context.Context, layer image.Layer) error {
	name := plainName(layer)
	if s.written[name] {
		return nil
	}
	s.written[name] = true
	blob, err := os.Open(s.store.BlobPath(layer.Digest))
	if err != nil {
		return err
	}
	defer blob.Close()
	size := int64(-1)
	for range 2 {
		if _, err := blob.Seek(0, io.SeekStart); err != nil {
			return err
		}
		plain, _, err := decompressed(&interruptible{ctx, blob})
		if err != nil {
			return err
		}
		if size < 0 {
			size, err = io.Copy(io.Discard, plain)
		} else {
			err = s.target.write(name, size, plain)
		}
		plain.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *saving) json(name string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return s.target.write(name, int64(len(text)), strings.NewReader(string(text)))
}

func (s *saving) dockerManifest(legacy bool) error {
	all := []dockerImage{}
	for _, img := range s.images {
		i := dockerImage{Config: blobName(img.ID), RepoTags: []string{}, Layers: []string{}}
		for _, name := range img.names {
			if !strings.Contains(name, "@") { // docker has tags there
				i.RepoTags = append(i.RepoTags, name)
			}
		}
		for _, layer := range img.Layers {
			name := blobName(layer.Digest)
			if legacy && isZstd(layer) {
				name = plainName(layer)
			}
			i.Layers = append(i.Layers, name)
		}
		all = append(all, i)
	}
	return s.json("manifest.json", all)
}

// index writes index.json, with what was in it before under other names.
func (s *saving) index() error {
	var index struct {
		SchemaVersion int                `json:"schemaVersion"`
		MediaType     string             `json:"mediaType,omitempty"`
		Manifests     []image.Descriptor `json:"manifests"`
	}
	text, err := s.target.index()
	if err != nil {
		return err
	}
	if text != nil {
		if err := json.Unmarshal(text, &index); err != nil {
			return fmt.Errorf("malformed index.json: %w", err)
		}
	}
	index.SchemaVersion, index.MediaType = 2, ociIndex
	for _, img := range s.images {
		names := img.names
		if len(names) == 0 {
			names = []string{""}
		}
		for _, name := range names {
			d := img.descriptor
			d.Platform = &image.Platform{OS: img.OS, Architecture: img.Arch, Variant: img.Variant}
			if name != "" {
				d.Annotations = map[string]string{annotationName: name}
			}
			index.Manifests = slices.DeleteFunc(index.Manifests, func(other image.Descriptor) bool {
				if name == "" {
					return other.Digest == d.Digest && other.Annotations[annotationName] == ""
				}
				return other.Annotations[annotationName] == name
			})
			index.Manifests = append(index.Manifests, d)
		}
	}
	if err := s.json("oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"}); err != nil {
		return err
	}
	return s.json("index.json", index)
}
