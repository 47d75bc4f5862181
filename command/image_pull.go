package command

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/sandbox/disk"
)

func imagePullCommand() *cli.Command {
	return &cli.Command{
		Name:      "pull",
		Usage:     "fetch images from registries, folders and archives",
		ArgsUsage: "IMAGE...",
		Description: `IMAGE is a reference (nginx means docker.io/library/nginx:latest), oci:DIR[:TAG],
oci-archive:FILE or docker-archive:FILE. Credentials are those of docker login,
podman login and skopeo login; mirrors, registries without TLS and certificates are
as registries.conf, daemon.json and certs.d have it for podman and docker. A pull
that was interrupted goes on where it was.

Examples:
  podsh image pull debian:bookworm
  podsh image pull --platform linux/arm64 localhost:5000/web
  podsh image pull oci:./layout:web`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "platform", Usage: "the image for `OS/ARCH[/VARIANT]` (default: this machine's)"},
			&cli.BoolFlag{Name: "plain-http", Usage: "speak with the registry without TLS; on localhost that is tried by itself"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no progress, only the ids"},
		},
		Action: func(c *cli.Context) error {
			if !c.Args().Present() {
				return usagef("podsh image pull nginx", "image pull needs an image")
			}
			for _, source := range c.Args().Slice() {
				images, err := pull(&image.Request{Source: source, Platform: c.String("platform"), PlainHTTP: c.Bool("plain-http")}, c.Bool("quiet"))
				if err != nil {
					return err
				}
				if err := printIDs(images); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// pull brings images into the store, and unpacks their layers meanwhile, as soon as each is whole.
func pull(request *image.Request, quiet bool) ([]*image.Image, error) {
	store, err := disk.OpenImages()
	if err != nil {
		return nil, err
	}
	request.Do, request.Store = image.Pull, store.Path
	p := newProgress(quiet)
	u := &unpacking{store: store, progress: p, layers: map[string]image.Layer{}, room: make(chan struct{}, runtime.NumCPU())}
	images, err := disk.AskImages(request, os.Stdin, nil, func(event image.Event) {
		p.tell(isDownloading, event)
		u.hear(event)
	})
	u.group.Wait()
	if len(u.errs) > 0 {
		return nil, errors.Join(err, hinted(errors.Join(u.errs...), "is the image malformed, or no room left? Nothing of it was kept"), discard(images))
	}
	return images, hinted(err, "podsh image pull --help shows what can be fetched, and where credentials are looked for")
}

// discard removes images that are of no use, since their layers can't be unpacked. One that a container has stays.
func discard(images []*image.Image) error {
	store, use, err := imagesInUse()
	for _, img := range images {
		if err == nil && len(use.Images[img.Digest]) == 0 {
			err = store.Remove(img, lookForUse)
		}
	}
	return err
}

// unpacking unpacks layers while others are on their way.
type unpacking struct {
	store    *image.Store
	progress *progress
	layers   map[string]image.Layer // by the digests of their blobs
	room     chan struct{}
	group    sync.WaitGroup
	mutex    sync.Mutex
	errs     []error
}

func (u *unpacking) hear(event image.Event) {
	if event.Found != nil {
		for _, layer := range event.Found.Layers {
			u.layers[layer.Digest] = layer
		}
	}
	layer, ok := u.layers[event.Blob]
	if !event.Ready || !ok {
		return
	}
	delete(u.layers, event.Blob)
	u.group.Go(func() {
		u.room <- struct{}{}
		defer func() { <-u.room }()
		if err := disk.UnpackUsually(u.store, layer, func(event image.Event) { u.progress.tell(isUnpacking, event) }); err != nil {
			u.mutex.Lock()
			u.errs = append(u.errs, err)
			u.mutex.Unlock()
			return
		}
		u.progress.finished(layer.Digest)
	})
}

// imageFor finds the image that is to run, or fetches it.
func imageFor(ref, when, platform string) (*image.Store, *image.Image, error) {
	store, err := disk.OpenImages()
	if err != nil {
		return nil, nil, err
	}
	switch when {
	case "missing", "always", "never":
	default:
		return nil, nil, usagef("--pull missing, always or never", "--pull %q is none of them", when)
	}
	elsewhere := isElsewhere(ref)
	if when != "always" && !elsewhere {
		img, err := store.Find(ref)
		if err == nil && platformFits(img, platform) {
			return store, img, nil
		}
		if err != nil && (when == "never" || !errors.Is(err, image.ErrNoImage)) {
			return nil, nil, err
		}
	}
	if !elsewhere {
		if _, err := image.ParseReference(ref); err != nil {
			return nil, nil, err
		}
	}
	images, err := pull(&image.Request{Source: ref, Single: true, Platform: platform}, false)
	if err != nil {
		return nil, nil, err
	}
	return store, images[0], nil
}

func platformFits(img *image.Image, platform string) bool {
	return platform == "" || strings.HasPrefix(img.OS+"/"+img.Arch+"/"+img.Variant+"/", platform+"/")
}

// isElsewhere says whether an image is named by where it lies, rather than by its name.
func isElsewhere(ref string) bool {
	kind, _, ok := strings.Cut(ref, ":")
	return ok && slices.Contains([]string{"oci", "oci-archive", "docker-archive"}, kind)
}
