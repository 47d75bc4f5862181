package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Store is the folder with a user's images. It is an OCI image layout (image-spec, "image-layout.md"): skopeo, umoci
// and crane read it as well.
//
//	oci-layout, index.json      a descriptor for each name of an image, or one for an image without a name
//	blobs/sha256/HEX            manifests, configurations and layers, as they were transferred
//	partial/HEX                 blobs that are being downloaded
//	layers/MAP/HEX/             layers unpacked, by DiffID; MAP names the ids that their files belong to
//	layers/MAP/new-*, gone-*    those in the making, and on their way out
//	lock                        flock(2): held while index.json changes
type Store struct{ Path string }

// Annotations of a descriptor in index.json.
const (
	annotationName  = "org.opencontainers.image.ref.name"
	annotationIndex = "podsh.index" // the digest of the index that it was chosen from
)

// Descriptor points to a blob, image-spec "descriptor.md".
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
		Variant      string `json:"variant,omitempty"`
	} `json:"platform,omitempty"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Manifests     []Descriptor `json:"manifests"`
}

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

// Open makes sure that the store is there.
func Open(path string) (*Store, error) {
	s := &Store{path}
	const hint = "set XDG_DATA_HOME to a folder on a disk, of your own"
	for _, dir := range []string{"", "blobs/sha256", "partial", "layers"} {
		if err := os.MkdirAll(s.path(dir), 0o700); err != nil {
			return nil, Fail(err, hint, "store of images: %v", err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || int(st.Uid) != os.Geteuid() {
		return nil, Fail(nil, hint, "store of images %s belongs to uid %d", path, st.Uid)
	}
	layout := s.path("oci-layout")
	if _, err := os.Lstat(layout); err != nil {
		if err := writeWhole(layout, []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
			return nil, Fail(err, hint, "store of images: %v", err)
		}
	}
	return s, nil
}

func (s *Store) path(elements ...string) string {
	return filepath.Join(append([]string{s.Path}, elements...)...)
}

// BlobPath is where a blob lies.
func (s *Store) BlobPath(digest string) string {
	return s.path("blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))
}

// PartialPath is where a blob lies that is being downloaded.
func (s *Store) PartialPath(digest string) string {
	return s.path("partial", strings.TrimPrefix(digest, "sha256:"))
}

// writeWhole writes a file: all of it, or nothing.
func writeWhole(path string, text []byte) error {
	next := fmt.Sprintf("%s.new-%d", path, os.Getpid())
	if err := os.WriteFile(next, text, 0o600); err != nil {
		os.Remove(next)
		return err
	}
	return os.Rename(next, path)
}

// lock takes the store's lock; the returned function gives it back, and so does the end of the process.
func (s *Store) lock() (unlock func(), err error) { return lockFile(s.path("lock")) }

func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("flock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

func (s *Store) readIndex() (*index, error) {
	all := &index{SchemaVersion: 2, Manifests: []Descriptor{}}
	text, err := os.ReadFile(s.path("index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err == nil {
		err = json.Unmarshal(text, all)
	}
	if err != nil {
		return nil, Fail(err, "remove it, and pull the images once more", "index of images %s: %v", s.path("index.json"), err)
	}
	return all, nil
}

// change changes the index under the lock.
func (s *Store) change(do func(*index) error) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	all, err := s.readIndex()
	if err != nil {
		return err
	}
	if err := do(all); err != nil {
		return err
	}
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	return writeWhole(s.path("index.json"), text)
}

// load reads an image by the descriptor of its manifest.
func (s *Store) load(d Descriptor) (*Image, error) {
	img := &Image{Digest: d.Digest, Index: d.Annotations[annotationIndex], Size: d.Size, Names: []string{}}
	var m manifest
	var c configuration
	err := s.readBlob(d.Digest, &m)
	if err == nil {
		err = s.readBlob(m.Config.Digest, &c)
	}
	if err != nil {
		return nil, Fail(err, "podsh image rm it, and pull it once more", "image %s: %v", d.Digest, err)
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return nil, Fail(nil, "podsh image rm it, and pull it once more", "image %s: %d layers, and digests of %d", d.Digest, len(m.Layers), len(c.RootFS.DiffIDs))
	}
	img.ID, img.Created, img.Config, img.History = m.Config.Digest, c.Created, c.Config, c.History
	img.OS, img.Arch, img.Variant = c.OS, c.Architecture, c.Variant
	img.Size += m.Config.Size
	for i, layer := range m.Layers {
		if !isDigest(layer.Digest) || !isDigest(c.RootFS.DiffIDs[i]) {
			return nil, Fail(nil, "podsh image rm it, and pull it once more", "image %s: malformed digest of layer %d", d.Digest, i)
		}
		img.Layers = append(img.Layers, Layer{c.RootFS.DiffIDs[i], layer.Digest, layer.Size, layer.MediaType})
		img.Size += layer.Size
	}
	return img, nil
}

func (s *Store) readBlob(digest string, value any) error {
	if !isDigest(digest) {
		return fmt.Errorf("malformed digest %q", digest)
	}
	text, err := os.ReadFile(s.BlobPath(digest))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, value)
}

// List returns all images, the newest first.
func (s *Store) List() ([]*Image, error) {
	all, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	byDigest := map[string]*Image{}
	var images []*Image
	for _, d := range all.Manifests {
		img := byDigest[d.Digest]
		if img == nil {
			if img, err = s.load(d); err != nil {
				return nil, err
			}
			byDigest[d.Digest] = img
			images = append(images, img)
		}
		if name := d.Annotations[annotationName]; name != "" {
			img.Names = append(img.Names, name)
		}
	}
	slices.SortStableFunc(images, func(a, b *Image) int { return b.Created.Compare(a.Created) })
	return images, nil
}

// Find returns the image that ref means: a name, a name with a digest, or an id or a digest, or the start of one.
func (s *Store) Find(ref string) (*Image, error) {
	all, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	if parsed, err := ParseReference(ref); err == nil {
		for _, d := range all.Manifests {
			if matches(d, parsed) {
				return s.named(all, d)
			}
		}
	}
	hex := strings.TrimPrefix(ref, "sha256:")
	if len(hex) >= 4 && only(hex, digits+"abcdef") {
		if img, err := s.byID(all, hex); img != nil || err != nil {
			return img, err
		}
	}
	return nil, Fail(ErrNoImage, "podsh image pull "+ref+"; `podsh image ls` lists those that are here", "no image %q", ref)
}

// matches says whether a descriptor is of the image that a reference means.
func matches(d Descriptor, r Reference) bool {
	name := d.Annotations[annotationName]
	if r.Digest == "" {
		return name == r.String()
	}
	if d.Digest != r.Digest && d.Annotations[annotationIndex] != r.Digest {
		return false
	}
	has, err := ParseReference(name)
	return err == nil && has.Registry == r.Registry && has.Repository == r.Repository
}

// named loads an image with all its names.
func (s *Store) named(all *index, d Descriptor) (*Image, error) {
	img, err := s.load(d)
	if err != nil {
		return nil, err
	}
	for _, other := range all.Manifests {
		if name := other.Annotations[annotationName]; other.Digest == d.Digest && name != "" {
			img.Names = append(img.Names, name)
		}
	}
	return img, nil
}

// byID finds the one image whose id or digest begins so.
func (s *Store) byID(all *index, hex string) (*Image, error) {
	var match *Image
	for _, d := range all.Manifests {
		if match != nil && match.Digest == d.Digest {
			continue
		}
		img, err := s.named(all, d)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(img.ID, "sha256:"+hex) && !strings.HasPrefix(img.Digest, "sha256:"+hex) {
			continue
		}
		if match != nil {
			return nil, Fail(ErrNoImage, "more of its digits", "%q could mean %s or %s", hex, match.ShortID(), img.ShortID())
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

// Add enters an image whose blobs are all there, under a name or none. A name that it takes from another image leaves
// that one without.
func (s *Store) Add(d Descriptor, name, indexDigest string) (*Image, error) {
	var img *Image
	err := s.change(func(all *index) (err error) {
		all.enter(Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, name, indexDigest)
		img, err = s.named(all, Descriptor{Digest: d.Digest, Size: d.Size, Annotations: map[string]string{annotationIndex: indexDigest}})
		return err
	})
	return img, err
}

// enter gives a name to an image.
func (x *index) enter(d Descriptor, name, indexDigest string) {
	if name != "" {
		x.unname(name)
	}
	d.Annotations = map[string]string{}
	if name != "" {
		d.Annotations[annotationName] = name
	}
	if indexDigest != "" {
		d.Annotations[annotationIndex] = indexDigest
	}
	has := false
	x.Manifests = slices.DeleteFunc(x.Manifests, func(other Descriptor) bool {
		same := other.Digest == d.Digest
		has = has || same && other.Annotations[annotationName] != ""
		return same && other.Annotations[annotationName] == ""
	})
	if name != "" || !has {
		x.Manifests = append(x.Manifests, d)
	}
}

// unname takes a name away; an image that has no other stays without one.
func (x *index) unname(name string) (found bool) {
	for i, d := range x.Manifests {
		if d.Annotations[annotationName] != name {
			continue
		}
		others := slices.ContainsFunc(x.Manifests, func(other Descriptor) bool {
			return other.Digest == d.Digest && other.Annotations[annotationName] != name
		})
		if others {
			x.Manifests = slices.Delete(x.Manifests, i, i+1)
		} else {
			delete(d.Annotations, annotationName)
		}
		return true
	}
	return false
}

// Tag gives an image one more name.
func (s *Store) Tag(img *Image, name string) error {
	return s.change(func(all *index) error {
		i := slices.IndexFunc(all.Manifests, func(d Descriptor) bool { return d.Digest == img.Digest })
		if i < 0 {
			return Fail(ErrNoImage, "`podsh image ls` lists those that are here", "image %q was removed meanwhile", img.Title())
		}
		d := all.Manifests[i]
		all.enter(Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, name, d.Annotations[annotationIndex])
		return nil
	})
}

// Untag takes a name away from its image, which has others.
func (s *Store) Untag(name string) error {
	return s.change(func(all *index) error { all.unname(name); return nil })
}

// Use says what is in use, by containers, and how an unpacked layer is removed: its files may belong to ids that only a
// user namespace can remove.
type Use struct {
	Images map[string][]string // digests, and who uses them
	Layers map[string]bool     // paths of unpacked layers
	Remove func(dir string) error
}

// Remove takes an image out of the index, and removes what no other one has of it.
func (s *Store) Remove(img *Image, u *Use) error {
	err := s.change(func(all *index) error {
		all.Manifests = slices.DeleteFunc(all.Manifests, func(d Descriptor) bool { return d.Digest == img.Digest })
		return nil
	})
	if err != nil {
		return err
	}
	_, err = s.sweep(u)
	return err
}

// Prune removes images that nothing uses: those without a name, or with all set all of them; and whatever no image
// has. It tells which images, and how many bytes of blobs.
func (s *Store) Prune(all bool, u *Use) (removed []*Image, bytes int64, err error) {
	images, err := s.List()
	if err != nil {
		return nil, 0, err
	}
	for _, img := range images {
		if (all || len(img.Names) == 0) && len(u.Images[img.Digest]) == 0 {
			removed = append(removed, img)
		}
	}
	err = s.change(func(x *index) error {
		x.Manifests = slices.DeleteFunc(x.Manifests, func(d Descriptor) bool {
			return slices.ContainsFunc(removed, func(img *Image) bool { return img.Digest == d.Digest })
		})
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	bytes, err = s.sweep(u)
	return removed, bytes, err
}

// fresh is how long blobs stay that no image has: one may be about to have them.
const fresh = time.Hour

// sweep removes blobs and layers that no image has.
func (s *Store) sweep(u *Use) (bytes int64, err error) {
	images, err := s.List()
	if err != nil {
		return 0, err
	}
	blobs, layers := map[string]bool{}, map[string]bool{}
	for _, img := range images {
		for _, digest := range []string{img.Digest, img.ID} {
			blobs[strings.TrimPrefix(digest, "sha256:")] = true
		}
		for _, layer := range img.Layers {
			blobs[strings.TrimPrefix(layer.Digest, "sha256:")] = true
			layers[strings.TrimPrefix(layer.DiffID, "sha256:")] = true
		}
	}
	unlock, busy, err := s.pulling(unix.LOCK_EX | unix.LOCK_NB)
	if err != nil {
		return 0, err
	}
	if busy { // somebody is about to have what nobody has yet
		return 0, nil
	}
	defer unlock()
	return s.sweepBlobs(blobs), s.sweepLayers(layers, u)
}

// pulling is held, shared, by whoever brings blobs in that no image has yet.
func (s *Store) pulling(how int) (unlock func(), busy bool, err error) {
	f, err := os.OpenFile(s.path("pulling"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, false, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, true, nil
		}
		return nil, false, fmt.Errorf("flock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, false, nil
}

// Bringing says that blobs are brought in which no image has yet, or layers taken which no container has; call the
// function when one has them.
func (s *Store) Bringing() (done func(), err error) {
	done, _, err = s.pulling(unix.LOCK_SH)
	return done, err
}

func (s *Store) sweepBlobs(wanted map[string]bool) (bytes int64) {
	for _, dir := range []string{s.path("blobs", "sha256"), s.path("partial")} {
		entries, _ := os.ReadDir(dir) // it is there
		for _, entry := range entries {
			info, err := entry.Info()
			if err != nil || wanted[entry.Name()] || dir == s.path("partial") && time.Since(info.ModTime()) < 24*fresh {
				continue
			}
			if os.Remove(filepath.Join(dir, entry.Name())) == nil {
				bytes += info.Size()
			}
		}
	}
	return bytes
}
