package transfer

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

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
)

// layerKinds are the media types of layers before the word that says how they are compressed, and OCI's names for them.
var layerKinds = []struct {
	kind, oci string
	foreign   bool // a registry may not have them, but may all the same
}{
	{ociTar, ociTar, false},
	{ociForeignTar, ociForeignTar, true},
	{"application/vnd.docker.image.rootfs.diff.tar", ociTar, false},
	{"application/vnd.docker.image.rootfs.foreign.diff.tar", ociForeignTar, true},
}

const ociForeignTar = "application/vnd.oci.image.layer.nondistributable.v1.tar"

// compressions are those words; how a layer is compressed is seen when it is read.
var compressions = []string{"gzip", "zstd", "xz", "bzip2"}

// layerType reads the media type of a layer: what OCI calls it, and whether a registry may lack it.
func layerType(mediaType string) (oci string, foreign, ok bool) {
	for _, k := range layerKinds {
		rest, is := strings.CutPrefix(mediaType, k.kind)
		if is && rest == "" {
			return k.oci, k.foreign, true
		}
		if is && (rest[0] == '+' || rest[0] == '.') && slices.Contains(compressions, rest[1:]) {
			return k.oci + "+" + rest[1:], k.foreign, true
		}
	}
	return "", false, false
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
	if f.descriptor.MediaType != manifests[1] {
		return nil
	}
	m := newManifest{Layers: []image.Descriptor{}}
	if err := json.Unmarshal(f.manifest, &m); err != nil {
		return fmt.Errorf("malformed manifest: %w", err)
	}
	m.MediaType = ociManifest
	if m.Config.MediaType == configs[1] {
		m.Config.MediaType = configs[0]
	}
	for i, layer := range m.Layers {
		oci, _, _ := layerType(layer.MediaType)
		m.Layers[i].MediaType = cmp.Or(oci, layer.MediaType)
	}
	var err error
	f.origin.Digest = f.descriptor.Digest
	f.manifest, f.descriptor, err = m.encode()
	return err
}

func checkLayers(img *image.Image) error {
	for i, layer := range img.Layers {
		_, _, known := layerType(layer.MediaType)
		switch {
		case known:
		case strings.Contains(layer.MediaType, "encrypted"):
			return fmt.Errorf("layer %d is encrypted: %q", i+1, layer.MediaType)
		default:
			return fmt.Errorf("layer %d is of an unknown type: %q", i+1, layer.MediaType)
		}
	}
	return nil
}

// sayForeign says why a layer may be missing, if that is so.
func sayForeign(d image.Descriptor, err error) error {
	_, foreign, _ := layerType(d.MediaType)
	var answer *transport.Error
	missing := errors.Is(err, fs.ErrNotExist) || errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound
	if !foreign || !missing {
		return err
	}
	return image.Fail(err, "an image with all its layers is what whoever made it can push: docker's --allow-nondistributable-artifacts",
		"layer %s is not there: by its type, %q, a registry need not have it", d.Digest, d.MediaType)
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
