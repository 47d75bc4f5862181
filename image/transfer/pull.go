package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
)

// source is where images come from.
type source interface {
	// find finds the images that are meant.
	find(ctx context.Context) ([]*found, error)

	// open opens a blob, from that byte on or, where that can't be, from its first; it tells which.
	open(ctx context.Context, d image.Descriptor, from int64) (blob io.ReadCloser, at int64, err error)

	// again says whether it makes sense to open a blob once more after that error.
	again(err error) bool

	// retries is told the error after which a blob is opened once more.
	retries(err error)

	// explain puts an error into words.
	explain(err error) error

	close()
}

// found is an image in a source.
type found struct {
	descriptor image.Descriptor
	manifest   []byte
	names      []string
	origin     image.Origin
}

// sources is where images come from, by the first word of Request.Source; what has none is in a registry.
var sources = []struct {
	prefix string
	open   func(ctx context.Context, p *pulling, rest string) (source, error)
}{
	{"oci:", openFolder},
	{"oci-archive:", openArchive},
	{"docker-archive:", openArchive},
	{"", openRegistry},
}

// atOnce is how many layers are downloaded at the same time.
const atOnce = 3

// pulling is one pull.
type pulling struct {
	*image.Request
	store  *image.Store
	wanted wanted
	tell   func(image.Event)
	source source
}

// Pull brings images into the store. tell is called by several at a time.
func Pull(ctx context.Context, store *image.Store, request *image.Request, tell func(image.Event)) ([]*image.Image, error) {
	p := &pulling{Request: request, store: store, tell: tell}
	var err error
	if p.wanted, err = parsePlatform(request.Platform); err != nil {
		return nil, err
	}
	done, err := store.Bringing()
	if err != nil {
		return nil, err
	}
	defer done()
	for _, kind := range sources {
		if rest, ok := strings.CutPrefix(request.Source, kind.prefix); ok {
			p.source, err = kind.open(ctx, p, rest)
			break
		}
	}
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, inWords(err)
	}
	defer p.source.close()
	images, err := p.all(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, inWords(p.source.explain(err))
	}
	return images, nil
}

func (p *pulling) all(ctx context.Context) ([]*image.Image, error) {
	all, err := p.source.find(ctx)
	if err == nil && p.Single && len(all) > 1 {
		var names []string
		for _, f := range all {
			names = append(names, f.names...)
		}
		err = image.Fail(image.ErrInvalid, "add :TAG of one of "+strings.Join(names, ", "), "%q holds %d images", p.Source, len(all))
	}
	if err != nil {
		return nil, err
	}
	if len(p.Names) > 0 {
		if len(all) != 1 {
			return nil, image.Fail(image.ErrInvalid, "take them all, and then `podsh image tag`", "there are %d images, and names for one", len(all))
		}
		all[0].names = p.Names
	}
	var images []*image.Image
	for _, f := range all {
		img, err := p.take(ctx, f)
		if err != nil {
			return nil, err
		}
		images = append(images, img)
	}
	return images, nil
}

// take takes in one image. Its entry in the index comes last: till then there are only blobs, which nobody misses.
func (p *pulling) take(ctx context.Context, f *found) (*image.Image, error) {
	if err := f.convert(); err != nil {
		return nil, err
	}
	img, err := image.Parse(f.manifest, func(config image.Descriptor) ([]byte, error) {
		if err := checkConfig(config); err != nil {
			return nil, err
		}
		if err := p.blob(ctx, config); err != nil {
			return nil, err
		}
		return os.ReadFile(p.store.BlobPath(config.Digest))
	})
	if err != nil {
		return nil, err
	}
	img.Digest, img.Index = cmp.Or(f.origin.Digest, f.descriptor.Digest), f.origin.Index
	img.Names = append(img.Names, f.names...)
	if err := checkLayers(img); err != nil {
		return nil, err
	}
	if err := p.checkPlatform(img); err != nil {
		return nil, err
	}
	if err := p.checkRoom(img); err != nil {
		return nil, err
	}
	p.tell(image.Event{Found: img})
	if err := p.layers(ctx, img); err != nil {
		return nil, err
	}
	if err := putBlob(p.store, f.descriptor.Digest, f.manifest); err != nil {
		return nil, err
	}
	if len(f.names) == 0 {
		img, err = p.store.Add(f.descriptor, "", f.origin)
	}
	for _, name := range f.names {
		if img, err = p.store.Add(f.descriptor, name, f.origin); err != nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	img.Names = append([]string{}, f.names...) // others that it has here came from elsewhere
	return img, nil
}

func (p *pulling) checkPlatform(img *image.Image) error {
	if p.wanted.fits(img) {
		return nil
	}
	is := image.Platform{OS: img.OS, Architecture: img.Arch, Variant: img.Variant}
	if p.wanted.asked {
		return image.Fail(nil, "--platform "+is.String(), "it has no image for %s, only for %s", p.wanted.Platform, is)
	}
	p.tell(image.Event{Warning: fmt.Sprintf("image %q is for %s, and this machine is %s", img.Title(), is, p.wanted.Platform)})
	return nil
}

// checkRoom refuses at once what the disk can't hold.
func (p *pulling) checkRoom(img *image.Image) error {
	var fs unix.Statfs_t
	if unix.Statfs(p.store.Path, &fs) != nil {
		return nil
	}
	free := int64(fs.Bavail) * fs.Bsize
	var need int64
	for _, layer := range unique(img.Layers) {
		if !p.has(layer) {
			need += layer.Size
		}
		if info, err := os.Stat(p.store.PartialPath(layer.Digest)); err == nil {
			need -= info.Size()
		}
	}
	if need > free {
		return noRoom(fmt.Sprintf("%d MB are to be downloaded, and %d MB are free", need>>20, free>>20))
	}
	return nil
}

// unique returns the blobs of layers, each once.
func unique(layers []image.Layer) []image.Descriptor {
	var all []image.Descriptor
	for _, layer := range layers {
		if !slices.ContainsFunc(all, func(d image.Descriptor) bool { return d.Digest == layer.Digest }) {
			all = append(all, image.Descriptor{MediaType: layer.MediaType, Digest: layer.Digest, Size: layer.Size})
		}
	}
	return all
}

// layers brings all layers, some at once. The first that fails ends it.
func (p *pulling) layers(ctx context.Context, img *image.Image) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all := unique(img.Layers)
	errs := make([]error, len(all))
	room := make(chan struct{}, atOnce)
	var group sync.WaitGroup
	for i, layer := range all {
		group.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			if ctx.Err() != nil {
				return
			}
			if errs[i] = sayForeign(layer, p.blob(ctx, layer)); errs[i] != nil {
				cancel()
			}
		})
	}
	group.Wait()
	var err error
	for _, each := range errs { // those that were only cancelled tell nothing
		if each != nil && (err == nil || errors.Is(err, context.Canceled)) {
			err = each
		}
	}
	return err
}
