package image

import (
	"encoding/json"
	"os"
	"slices"
)

// Annotations of a descriptor in index.json.
const (
	annotationName   = "org.opencontainers.image.ref.name"
	annotationIndex  = "podsh.index"  // the digest of the index that it was chosen from
	annotationOrigin = "podsh.digest" // the digest of the manifest that this one was made of
	annotationShort  = "podsh.short"  // what the name was that it was found by, if that was a short one of another registry's
)

// Descriptor points to a blob, image-spec "descriptor.md".
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *Platform         `json:"platform,omitempty"`
}

// Platform is what an image runs on, image-spec "image-index.md".
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

// String is the platform as flags have it.
func (p Platform) String() string {
	if p.Variant == "" {
		return p.OS + "/" + p.Architecture
	}
	return p.OS + "/" + p.Architecture + "/" + p.Variant
}

// index is index.json, image-spec "image-layout.md".
type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Manifests     []Descriptor `json:"manifests"`
}

func (s *Store) readIndex() (*index, error) {
	all := &index{SchemaVersion: 2, Manifests: []Descriptor{}}
	text, err := os.ReadFile(s.path("index.json"))
	if isMissing(err) {
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

// Origin is where the manifest of an image comes from.
type Origin struct {
	Index  string // the digest of the index that it was chosen from, if it was
	Digest string // of the manifest that it was made of, if it was: a layout has OCI's alone
	Short  string // what was asked for, if that named no registry and means another one than docker.io
}

func (d Descriptor) origin() Origin {
	return Origin{Index: d.Annotations[annotationIndex], Digest: d.Annotations[annotationOrigin]}
}

// identity is the digest of an image, which is that of its registry.
func (d Descriptor) identity() string {
	if origin := d.Annotations[annotationOrigin]; origin != "" {
		return origin
	}
	return d.Digest
}

// Add enters an image whose blobs are all there, under a name or none. A name that it takes from another image leaves
// that one without.
func (s *Store) Add(d Descriptor, name string, from Origin) (*Image, error) {
	var img *Image
	err := s.change(func(all *index) (err error) {
		img, err = s.named(all, all.enter(d, name, from))
		return err
	})
	return img, err
}

// Manifest returns the manifest of an image as it is in the store, and what points to it.
func (s *Store) Manifest(img *Image) ([]byte, Descriptor, error) {
	all, err := s.readIndex()
	if err != nil {
		return nil, Descriptor{}, err
	}
	for _, d := range all.Manifests {
		if d.identity() == img.Digest {
			text, err := s.readDocument(d.Digest)
			return text, Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, err
		}
	}
	return nil, Descriptor{}, gone(img)
}

func gone(img *Image) error {
	return Fail(ErrNoImage, "`podsh image ls` lists those that are here", "image %q was removed meanwhile", img.Title())
}

// enter gives a name to an image.
func (x *index) enter(d Descriptor, name string, from Origin) Descriptor {
	if name != "" {
		x.unname(name)
	}
	for _, other := range x.Manifests {
		if from.Short != "" && other.Annotations[annotationShort] == from.Short {
			delete(other.Annotations, annotationShort)
		}
		// The same image came another way, such as by an archive of ours: it keeps the digest that others know it by.
		if has := other.origin().Digest; other.Digest == d.Digest && has != from.Digest {
			if from.Index == "" {
				from.Index = from.Digest
			}
			from.Digest = has
		}
	}
	d = Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Annotations: map[string]string{}}
	for key, value := range map[string]string{annotationName: name, annotationIndex: from.Index, annotationOrigin: from.Digest, annotationShort: from.Short} {
		if value != "" {
			d.Annotations[key] = value
		}
	}
	has := false
	x.Manifests = slices.DeleteFunc(x.Manifests, func(other Descriptor) bool {
		same := other.identity() == d.identity()
		has = has || same && other.Annotations[annotationName] != ""
		return same && other.Annotations[annotationName] == ""
	})
	if name != "" || !has {
		x.Manifests = append(x.Manifests, d)
	}
	return d
}

// unname takes a name away; an image that has no other stays without one.
func (x *index) unname(name string) {
	for i, d := range x.Manifests {
		if d.Annotations[annotationName] != name {
			continue
		}
		others := slices.ContainsFunc(x.Manifests, func(other Descriptor) bool {
			return other.identity() == d.identity() && other.Annotations[annotationName] != name
		})
		if others {
			x.Manifests = slices.Delete(x.Manifests, i, i+1)
		} else {
			delete(d.Annotations, annotationName)
			delete(d.Annotations, annotationShort)
		}
		return
	}
}

// Tag gives an image one more name.
func (s *Store) Tag(img *Image, name string) error {
	return s.change(func(all *index) error {
		i := slices.IndexFunc(all.Manifests, func(d Descriptor) bool { return d.identity() == img.Digest })
		if i < 0 {
			return gone(img)
		}
		d := all.Manifests[i]
		all.enter(d, name, d.origin())
		return nil
	})
}

// Untag takes a name away from its image, which stays.
func (s *Store) Untag(name string) error {
	return s.change(func(all *index) error { all.unname(name); return nil })
}
