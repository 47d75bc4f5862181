package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// MaxDocument bounds manifests and configurations, as registries do.
const MaxDocument = 4 << 20

// maxLayers is what an overlay takes, OVL_MAX_STACK in fs/overlayfs; less one, for the layer that podsh may add (Stack).
const maxLayers = 499

// maxManifestLayers bounds those that a manifest has, one that is there twice among them.
const maxManifestLayers = 10_000

// maxLayerSize is beyond what anybody ships; sizes below it add up without an overflow.
const maxLayerSize = 1 << 40

// errBroken is an image whose blobs are not what they should be.
var errBroken = errors.New("broken image")

// manifest is an image's, of OCI and of Docker alike: image-spec "manifest.md".
type manifest struct {
	Config Descriptor   `json:"config"`
	Layers []Descriptor `json:"layers"`
}

// configuration is an image's, image-spec "config.md".
type configuration struct {
	Created      time.Time `json:"created"`
	OS           string    `json:"os"`
	Architecture string    `json:"architecture"`
	Variant      string    `json:"variant"`
	Config       Config    `json:"config"`
	RootFS       struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []History `json:"history"`
}

// Parse reads an image from its manifest and its configuration, which are nobody's word to trust.
func Parse(manifestText []byte, configText func(Descriptor) ([]byte, error)) (*Image, error) {
	var m manifest
	if err := json.Unmarshal(manifestText, &m); err != nil {
		return nil, fmt.Errorf("malformed manifest: %w", err)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	text, err := configText(m.Config)
	if err != nil {
		return nil, err
	}
	var c configuration
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, fmt.Errorf("malformed configuration: %w", err)
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("the manifest has %d layers, and the configuration %d", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	img := &Image{
		ID: m.Config.Digest, Names: []string{}, Created: c.Created, Size: int64(len(manifestText)) + m.Config.Size,
		OS: c.OS, Arch: c.Architecture, Variant: c.Variant, Config: c.Config, History: c.History, Layers: []Layer{},
	}
	for i, layer := range m.Layers {
		if err := CheckDigest(c.RootFS.DiffIDs[i], fmt.Sprintf("layer %d", i+1)); err != nil {
			return nil, err
		}
		img.Layers = append(img.Layers, Layer{c.RootFS.DiffIDs[i], layer.Digest, layer.Size, layer.MediaType})
		img.Size += layer.Size
	}
	if n := img.distinct(); n > maxLayers {
		return nil, fmt.Errorf("%d layers are more than the %d that an overlay takes", n, maxLayers)
	}
	return img, nil
}

// distinct counts the layers, those that are the same once.
func (i *Image) distinct() int {
	seen := map[string]bool{}
	for _, layer := range i.Layers {
		seen[layer.DiffID] = true
	}
	return len(seen)
}

func (m *manifest) check() error {
	if len(m.Layers) > maxManifestLayers {
		return fmt.Errorf("%d layers are more than anybody makes", len(m.Layers))
	}
	if err := CheckDigest(m.Config.Digest, "its configuration"); err != nil {
		return err
	}
	if m.Config.Size < 0 || m.Config.Size > MaxDocument {
		return fmt.Errorf("a configuration of %d bytes", m.Config.Size)
	}
	for i, layer := range m.Layers {
		if err := CheckDigest(layer.Digest, fmt.Sprintf("layer %d", i+1)); err != nil {
			return err
		}
		if layer.Size < 0 || layer.Size > maxLayerSize {
			return fmt.Errorf("layer %d of %d bytes", i+1, layer.Size)
		}
	}
	return nil
}

// load reads an image by the descriptor of its manifest.
func (s *Store) load(d Descriptor) (*Image, error) {
	text, err := s.readDocument(d.Digest)
	var img *Image
	if err == nil {
		img, err = Parse(text, func(config Descriptor) ([]byte, error) { return s.readDocument(config.Digest) })
	}
	if err != nil {
		return nil, Fail(errors.Join(errBroken, err), "`podsh image prune` removes it; then pull it once more", "image %s: %v", d.Digest, err)
	}
	img.Digest, img.Index = d.identity(), d.Annotations[annotationIndex]
	return img, nil
}

// readDocument reads a manifest or a configuration.
func (s *Store) readDocument(digest string) ([]byte, error) {
	if err := CheckDigest(digest, "a manifest"); err != nil {
		return nil, err
	}
	f, err := os.Open(s.BlobPath(digest))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxDocument))
}

// List returns all images, the newest first. What can't be read for its blobs are gone is not among them.
func (s *Store) List() ([]*Image, error) {
	all, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	return s.images(all), nil
}

func (s *Store) images(all *index) []*Image {
	byDigest := map[string]*Image{}
	images := []*Image{}
	for _, d := range all.Manifests {
		img := byDigest[d.identity()]
		if img == nil {
			var err error
			if img, err = s.load(d); err != nil {
				continue
			}
			byDigest[d.identity()] = img
			images = append(images, img)
		}
		if name := d.Annotations[annotationName]; name != "" {
			img.Names = append(img.Names, name)
		}
	}
	slices.SortStableFunc(images, func(a, b *Image) int { return b.Created.Compare(a.Created) })
	return images
}

// references are what a name may mean: an image of that registry, else one that is from none. Those are called
// localhost/NAME by podsh, where nobody has given them another name, and by podman; who is used to docker says NAME.
func references(name string) []Reference {
	ref, err := ParseReference(name)
	if err != nil {
		return nil
	}
	other := localRegistry + "/" + name
	if ref.Registry == localRegistry {
		other = strings.TrimPrefix(name, localRegistry+"/")
	}
	if local, err := ParseReference(other); err == nil && (ref.Registry == hub || ref.Registry == localRegistry) {
		return []Reference{ref, local}
	}
	return []Reference{ref}
}

// NameOf is the name of the image that ref means; "" if it is none, but an id, say.
func (i *Image) NameOf(ref string) string {
	for _, r := range references(ref) {
		if slices.Contains(i.Names, r.String()) {
			return r.String()
		}
	}
	return ""
}

// Find returns the image that ref means: a name, a name with a digest, or an id or a digest, or the start of one.
func (s *Store) Find(ref string) (*Image, error) {
	all, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	for _, r := range references(ref) {
		for _, d := range all.Manifests {
			if matches(d, r) {
				return s.named(all, d)
			}
		}
	}
	if i := slices.IndexFunc(all.Manifests, func(d Descriptor) bool { return d.isShort(ref) }); i >= 0 {
		return s.named(all, all.Manifests[i])
	}
	hex := strings.TrimPrefix(ref, "sha256:")
	if len(hex) >= 4 && only(hex, digits+"abcdef") {
		if img, err := s.byID(all, hex); img != nil || err != nil {
			return img, err
		}
	}
	return nil, Fail(ErrNoImage, "`podsh image pull "+ref+"`; `podsh image ls` lists those that are here", "no image %q", ref)
}

// matches says whether a descriptor is of the image that a reference means.
func matches(d Descriptor, r Reference) bool {
	name := d.Annotations[annotationName]
	if r.Digest == "" {
		return name == r.String()
	}
	if d.identity() != r.Digest && d.Annotations[annotationIndex] != r.Digest {
		return false
	}
	has, err := ParseReference(name)
	return err == nil && has.Registry == r.Registry && has.Repository == r.Repository
}

// isShort says whether a name is the short one that an image was found by, in a registry that registries.conf names.
func (d Descriptor) isShort(name string) bool {
	short := d.Annotations[annotationShort]
	ref, err := ParseReference(name)
	return err == nil && short != "" && short == ref.String()
}

// named loads an image with all its names.
func (s *Store) named(all *index, d Descriptor) (*Image, error) {
	img, err := s.load(d)
	if err != nil {
		return nil, err
	}
	for _, other := range all.Manifests {
		if name := other.Annotations[annotationName]; other.identity() == d.identity() && name != "" {
			img.Names = append(img.Names, name)
		}
	}
	return img, nil
}

// byID finds the one image whose id or digest begins so.
func (s *Store) byID(all *index, hex string) (*Image, error) {
	var match *Image
	for _, img := range s.images(all) {
		if !strings.HasPrefix(img.ID, "sha256:"+hex) && !strings.HasPrefix(img.Digest, "sha256:"+hex) {
			continue
		}
		if match != nil {
			return nil, Fail(ErrNoImage, "type more of its digits", "%q could mean %s or %s", hex, match.Digest, img.Digest)
		}
		match = img
	}
	return match, nil
}

// ShortID is the id as it is shown.
func (i *Image) ShortID() string {
	hex := strings.TrimPrefix(i.ID, "sha256:")
	return hex[:min(12, len(hex))]
}

// Title is a name of the image, or its id.
func (i *Image) Title() string {
	if len(i.Names) > 0 {
		return Familiar(i.Names[0])
	}
	return i.ShortID()
}
