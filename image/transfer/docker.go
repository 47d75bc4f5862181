package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/podsh/podsh/image"
)

// dockerArchive is a source: what `docker save` wrote until 2023, and many tools write still. It has no manifests and
// no digests of blobs; both are made here, so that the same archive always gives the same image.
type dockerArchive struct {
	layout
	blobs map[string]string // names of files by their digests
}

// dockerImage is an image in manifest.json.
type dockerImage struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

func (d *dockerArchive) find(ctx context.Context) ([]*found, error) {
	text, err := d.read("manifest.json")
	if err != nil {
		return nil, err
	}
	var images []dockerImage
	if err := json.Unmarshal(text, &images); err != nil {
		return nil, fmt.Errorf("malformed manifest.json: %w", err)
	}
	d.blobs = map[string]string{}
	var all []*found
	var there []string
	for _, i := range images {
		var names []string
		for _, tag := range i.RepoTags {
			ref, err := image.ParseReference(tag)
			if err != nil {
				return nil, err
			}
			there = append(there, ref.String())
			if d.meant(image.Descriptor{}, ref.String()) {
				names = append(names, ref.String())
			}
		}
		if d.tag != "" && names == nil {
			continue
		}
		f, err := d.image(ctx, i)
		if err != nil {
			return nil, err
		}
		f.names = names
		all = append(all, f)
	}
	if len(all) == 0 {
		return nil, d.noImage(there)
	}
	return all, nil
}

// image makes the manifest of an image.
func (d *dockerArchive) image(ctx context.Context, i dockerImage) (*found, error) {
	config, err := d.read(i.Config)
	if err != nil {
		return nil, err
	}
	var c struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("malformed %s: %w", i.Config, err)
	}
	if len(c.RootFS.DiffIDs) != len(i.Layers) {
		return nil, fmt.Errorf("manifest.json has %d layers, and %s %d", len(i.Layers), i.Config, len(c.RootFS.DiffIDs))
	}
	m := newManifest{2, ociManifest, image.Descriptor{MediaType: ociConfig, Digest: digestOf(config), Size: int64(len(config))}, []image.Descriptor{}}
	d.blobs[m.Config.Digest] = i.Config
	for n, name := range i.Layers {
		layer, err := d.layer(ctx, name, c.RootFS.DiffIDs[n])
		if err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, layer)
		d.blobs[layer.Digest] = name
	}
	f := &found{}
	f.manifest, f.descriptor, err = m.encode()
	return f, err
}

// layer describes a layer. The digest of a plain tar is known: whether it is right shows when it is copied.
func (d *dockerArchive) layer(ctx context.Context, name, diffID string) (image.Descriptor, error) {
	r, c, err := d.file(name)
	if err != nil {
		return image.Descriptor{}, err
	}
	defer c.Close()
	plain, kind, err := decompressed(r)
	if err != nil {
		return image.Descriptor{}, err
	}
	plain.Close()
	layer := image.Descriptor{MediaType: ociTar, Digest: diffID, Size: r.Size()}
	if kind == "" {
		return layer, nil
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, &interruptible{ctx, io.NewSectionReader(r, 0, r.Size())}); err != nil {
		return image.Descriptor{}, err
	}
	layer.MediaType, layer.Digest = ociTar+"+"+kind, "sha256:"+hex.EncodeToString(hash.Sum(nil))
	return layer, nil
}

func (d *dockerArchive) open(_ context.Context, blob image.Descriptor, from int64) (io.ReadCloser, int64, error) {
	r, c, err := d.file(d.blobs[blob.Digest])
	if err != nil {
		return nil, 0, err
	}
	return rest(r, c, from)
}
