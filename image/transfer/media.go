package transfer

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"mime"
	"slices"
	"strings"

	"github.com/podsh/podsh/image"
)

// Media types that are written here: image-spec "media-types.md".
const (
	ociIndex    = "application/vnd.oci.image.index.v1+json"
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociConfig   = "application/vnd.oci.image.config.v1+json"
	ociTar      = "application/vnd.oci.image.layer.v1.tar"
	ociGzip     = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// What there is of each kind, OCI's and Docker's.
var (
	indexes   = []string{ociIndex, "application/vnd.docker.distribution.manifest.list.v2+json"}
	manifests = []string{ociManifest, "application/vnd.docker.distribution.manifest.v2+json"}
	configs   = []string{ociConfig, "application/vnd.docker.container.image.v1+json"}
	layers    = []string{
		ociTar, ociGzip, ociTar + "+zstd",
		"application/vnd.docker.image.rootfs.diff.tar",
		"application/vnd.docker.image.rootfs.diff.tar.gzip",
		"application/vnd.docker.image.rootfs.diff.tar.zstd",
	}
)

// unfit are media types of layers that are known, and can't be taken.
var unfit = []struct{ mark, why string }{
	{"encrypted", "is encrypted"},
	{"nondistributable", "may not be kept by the registry, but lies elsewhere"},
	{"foreign", "may not be kept by the registry, but lies elsewhere"},
}

// fromDocker are OCI's names for what Docker calls otherwise.
var fromDocker = map[string]string{
	manifests[1]: ociManifest,
	configs[1]:   ociConfig,
	layers[3]:    layers[0],
	layers[4]:    layers[1],
	layers[5]:    layers[2],
}

// newManifest is a manifest that is written here.
type newManifest struct {
	SchemaVersion int                `json:"schemaVersion"`
	MediaType     string             `json:"mediaType"`
	Config        image.Descriptor   `json:"config"`
	Layers        []image.Descriptor `json:"layers"`
}

func (m *newManifest) encode() ([]byte, image.Descriptor, error) {
	text, err := json.Marshal(m)
	return text, image.Descriptor{MediaType: m.MediaType, Digest: digestOf(text), Size: int64(len(text))}, err
}

// convert makes one of OCI's of a manifest of Docker's, which say the same: skopeo and umoci read no other in a
// layout. The image keeps its digest.
func (f *found) convert() error {
	if fromDocker[f.descriptor.MediaType] == "" {
		return nil
	}
	m := newManifest{Layers: []image.Descriptor{}}
	if err := json.Unmarshal(f.manifest, &m); err != nil {
		return fmt.Errorf("malformed manifest: %w", err)
	}
	m.MediaType = ociManifest
	m.Config.MediaType = cmp.Or(fromDocker[m.Config.MediaType], m.Config.MediaType)
	for i, layer := range m.Layers {
		m.Layers[i].MediaType = cmp.Or(fromDocker[layer.MediaType], layer.MediaType)
	}
	var err error
	f.origin.Digest = f.descriptor.Digest
	f.manifest, f.descriptor, err = m.encode()
	return err
}

func checkLayers(img *image.Image) error {
	for i, layer := range img.Layers {
		if slices.Contains(layers, layer.MediaType) {
			continue
		}
		for _, known := range unfit {
			if strings.Contains(layer.MediaType, known.mark) {
				return fmt.Errorf("layer %d %s: %q", i+1, known.why, layer.MediaType)
			}
		}
		return fmt.Errorf("layer %d is of an unknown type: %q", i+1, layer.MediaType)
	}
	return nil
}

func checkConfig(d image.Descriptor) error {
	if !slices.Contains(configs, d.MediaType) {
		return fmt.Errorf("that is no image to run, but of type %q", d.MediaType)
	}
	return nil
}

// document is what tells manifests and indexes apart.
type document struct {
	SchemaVersion int                `json:"schemaVersion"`
	MediaType     string             `json:"mediaType"`
	Config        *image.Descriptor  `json:"config"`
	Manifests     []image.Descriptor `json:"manifests"`
}

// readDocument reads a manifest or an index. What it says of itself counts more than what others say of it.
func readDocument(text []byte, mediaType string) (*document, error) {
	d := &document{}
	if err := json.Unmarshal(text, d); err != nil {
		return nil, fmt.Errorf("malformed manifest: %w", err)
	}
	if base, _, err := mime.ParseMediaType(mediaType); err == nil && d.MediaType == "" {
		d.MediaType = base
	}
	switch {
	case d.SchemaVersion == 1:
		return nil, fmt.Errorf("its manifest is of schema 1, which has been given up since 2017; it has to be pushed anew")
	case slices.Contains(indexes, d.MediaType), slices.Contains(manifests, d.MediaType):
	case d.Manifests != nil:
		d.MediaType = ociIndex
	case d.Config != nil:
		d.MediaType = ociManifest
	default:
		return nil, fmt.Errorf("malformed manifest: of unknown type %q", d.MediaType)
	}
	return d, nil
}

func digestOf(text []byte) string {
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// checkDocument compares a manifest with what points to it.
func checkDocument(text []byte, d image.Descriptor) error {
	if digest := digestOf(text); digest != d.Digest {
		return fmt.Errorf("wrong digest: %s was asked for, and %s came", d.Digest, digest)
	}
	return nil
}
