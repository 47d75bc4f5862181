package command

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/sandbox"
)

func Image() *cli.Command {
	return &cli.Command{
		Name:  "image",
		Usage: "fetch, list and remove images",
		Description: `Images are kept below $XDG_DATA_HOME/podsh/images (~/.local/share), an OCI image
layout that skopeo reads as well, and their layers unpacked beside it. One that comes
from no registry and has no name of its own is called localhost/NAME. NAME and
localhost/NAME find each other, unless there are both.

Examples:
  podsh image pull nginx
  podsh image ls`,
		Subcommands: []*cli.Command{
			imagePullCommand(), imageLsCommand(), imageInspectCommand(), imageHistoryCommand(), imageTagCommand(), imageRmCommand(),
			imagePruneCommand(), imageSaveCommand(), imageLoadCommand(), imageImportCommand(),
		},
	}
}

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
	store, err := sandbox.OpenImages()
	if err != nil {
		return nil, err
	}
	request.Do, request.Store = image.Pull, store.Path
	p := newProgress(quiet)
	u := &unpacking{store: store, progress: p, layers: map[string]image.Layer{}, room: make(chan struct{}, runtime.NumCPU())}
	images, err := sandbox.AskImages(request, os.Stdin, nil, func(event image.Event) {
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

// hinted gives an error a hint that has none.
func hinted(err error, hint string) error {
	if err == nil || len(sandbox.Hints(err)) > 0 {
		return err
	}
	return image.Fail(err, hint, "%v", err)
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
		if err := sandbox.UnpackUsually(u.store, layer, func(event image.Event) { u.progress.tell(isUnpacking, event) }); err != nil {
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
	store, err := sandbox.OpenImages()
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

// lookForUse looks which images and layers containers have.
func lookForUse() (*image.Use, error) {
	_, use, err := imagesInUse()
	return use, err
}

func imagesInUse() (*image.Store, *image.Use, error) {
	images, err := sandbox.OpenImages()
	if err != nil {
		return nil, nil, err
	}
	store, err := sandbox.OpenStore()
	if err != nil {
		return nil, nil, err
	}
	use, err := store.ImageUse()
	return images, use, err
}

// eachImage does something with each image that is named.
func eachImage(c *cli.Context, do func(*image.Store, *image.Image, string) error) error {
	if !c.Args().Present() {
		return usagef(c.Command.HelpName+" NAME; `podsh image ls` lists them", "%s needs an image", called(c))
	}
	store, err := sandbox.OpenImages()
	if err != nil {
		return err
	}
	var failed errorList
	for _, ref := range c.Args().Slice() {
		img, err := store.Find(ref)
		if err == nil {
			err = do(store, img, ref)
		}
		failed.add(err)
	}
	return failed.last
}

func imageInspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show everything known about images, as JSON",
		ArgsUsage: "IMAGE...",
		Description: `Prints a JSON array: names, digests, layers, history, and how a command runs in
it (config).

Examples:
  podsh image inspect nginx | jq '.[0].config'`,
		Action: func(c *cli.Context) error {
			images := []*image.Image{}
			err := eachImage(c, func(_ *image.Store, img *image.Image, _ string) error {
				images = append(images, img)
				return nil
			})
			if len(images) == 0 && err != nil {
				return err
			}
			return errors.Join(writeJSON(os.Stdout, images), err)
		},
	}
}

func imageHistoryCommand() *cli.Command {
	return &cli.Command{
		Name:      "history",
		Usage:     "show how an image came about",
		ArgsUsage: "IMAGE",
		Description: `Lists the steps that made the image, the newest first, and the size of the layer
that each made.

Examples:
  podsh image history nginx`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Action: func(c *cli.Context) error {
			if c.NArg() > 1 {
				return usagef("podsh image history "+c.Args().First(), "image history takes one image, not %d", c.NArg())
			}
			return eachImage(c, func(_ *image.Store, img *image.Image, _ string) error {
				if c.Bool("json") {
					return writeJSON(os.Stdout, img.History)
				}
				t := newTable(os.Stdout, "AGE", "CREATED BY", "SIZE", "COMMENT")
				layer := len(img.Layers)
				for i := len(img.History) - 1; i >= 0; i-- {
					h, bytes := img.History[i], int64(0)
					if !h.EmptyLayer && layer > 0 {
						layer--
						bytes = img.Layers[layer].Size
					}
					t.row(age(time.Since(h.Created)), shorten(sandbox.Printable(h.CreatedBy), 60), size(uint64(bytes)), shorten(sandbox.Printable(h.Comment), 40))
				}
				return t.Flush()
			})
		},
	}
}

func imageTagCommand() *cli.Command {
	return &cli.Command{
		Name:      "tag",
		Usage:     "give an image one more name",
		ArgsUsage: "IMAGE NAME",
		Description: `The name is taken from an image that has it.

Examples:
  podsh image tag nginx localhost:5000/web:1.0`,
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usagef("podsh image tag IMAGE NAME", "image tag takes an image and a name, not %s", counted(c.NArg(), "argument", "arguments"))
			}
			name, err := image.ParseReference(c.Args().Get(1))
			if err != nil {
				return err
			}
			if name.Digest != "" {
				return usagef("NAME[:TAG]", "an image can't be given a digest")
			}
			store, err := sandbox.OpenImages()
			if err != nil {
				return err
			}
			img, err := store.Find(c.Args().First())
			if err != nil {
				return err
			}
			return store.Tag(img, name.String())
		},
	}
}

func imageRmCommand() *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "remove images",
		ArgsUsage: "IMAGE...",
		Description: `Takes a name away; with the last one, or by its id, the image goes, and what no
other image has of it. One that a container has is refused.

Examples:
  podsh image rm nginx`,
		Action: func(c *cli.Context) error {
			_, use, err := imagesInUse()
			if err != nil {
				return err
			}
			return eachImage(c, func(store *image.Store, img *image.Image, ref string) error {
				if name := img.NameOf(ref); name != "" && len(img.Names) > 1 {
					return store.Untag(name)
				}
				if users := use.Images[img.Digest]; len(users) > 0 {
					return usageless("podsh rm -f "+strings.Join(users, " "), "image %q is used by %s", img.Title(), strings.Join(users, ", "))
				}
				return store.Remove(img, lookForUse)
			})
		},
	}
}

// usageless is an error with a hint that is no error in how podsh was called.
func usageless(hint, format string, args ...any) error { return image.Fail(nil, hint, format, args...) }

func imagePruneCommand() *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "remove what nobody uses",
		Description: `Removes images without a name, with -a all that no container has; and blobs and
unpacked layers that no image has.

Examples:
  podsh image prune
  podsh image prune -a`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "all images that no container has"}},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("podsh image rm "+c.Args().First(), "image prune takes no arguments, not %q", c.Args().First())
			}
			store, err := sandbox.OpenImages()
			if err != nil {
				return err
			}
			removed, bytes, err := store.Prune(c.Bool("all"), lookForUse)
			var titles []string
			for _, img := range removed {
				titles = append(titles, img.Title())
			}
			fmt.Fprintf(os.Stderr, "podsh: %s and %s bytes of blobs removed\n", counted(len(removed), "image", "images"), size(uint64(bytes)))
			return errors.Join(printLines(os.Stdout, titles), err)
		},
	}
}

func imageSaveCommand() *cli.Command {
	return &cli.Command{
		Name:      "save",
		Usage:     "write images to a file or a folder",
		ArgsUsage: "IMAGE...",
		Description: `Writes images for others to read: docker load, podman load, skopeo.

Examples:
  podsh image save -o web.tar nginx
  podsh image save --format oci -o layout nginx redis
  podsh image save nginx | ssh host podsh image load`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "-", Usage: "write to `FILE`, or a folder"},
			&cli.StringFlag{Name: "format", Value: "docker-archive", Usage: "`FORMAT`: docker-archive, oci-archive or oci (a folder)"},
		},
		Action: imageSave,
	}
}

func imageSave(c *cli.Context) error {
	format, file := c.String("format"), c.String("output")
	switch {
	case !slices.Contains([]string{"docker-archive", "oci-archive", "oci"}, format):
		return usagef("--format docker-archive, oci-archive or oci", "--format %q is none of them", format)
	case file == "-" && format == "oci":
		return usagef("podsh image save --format oci -o DIR", "a folder can't be written to standard output")
	case file == "-" && isTerminal(os.Stdout):
		return usagef("podsh image save -o FILE, or a pipe", "an archive is not for a terminal")
	}
	var digests []string
	var store *image.Store
	err := eachImage(c, func(s *image.Store, img *image.Image, ref string) error {
		store = s
		digests = append(digests, ref)
		return nil
	})
	if err != nil {
		return err
	}
	_, err = sandbox.AskImages(&image.Request{Do: image.Save, Store: store.Path, Images: digests, Format: format, File: file}, nil, os.Stdout, newProgress(true).ignore)
	return hinted(err, "is the folder there, is there room, and may you write in it?")
}

// ignore hears nothing but warnings.
func (p *progress) ignore(event image.Event) {
	p.tell(isUnpacking, image.Event{Warning: event.Warning})
}

func imageLoadCommand() *cli.Command {
	return &cli.Command{
		Name:  "load",
		Usage: "take in images from an archive or a layout",
		Description: `Reads what podsh image save, docker save, podman save and skopeo write, and prints
the names of what it took in; of an image without a name the id.

Examples:
  podsh image load -i web.tar
  podman save nginx | podsh image load`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "input", Aliases: []string{"i"}, Value: "-", Usage: "read `FILE`"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no progress"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("podsh image load -i "+c.Args().First(), "image load takes no arguments, not %q", c.Args().First())
			}
			file := c.String("input")
			if file == "-" && isTerminal(os.Stdin) {
				return usagef("podsh image load -i FILE", "there is no archive on this terminal")
			}
			source := "docker-archive:" + file // or the other kind: what it is, is seen
			if info, err := os.Stat(file); err == nil && info.IsDir() {
				source = "oci:" + file
			}
			images, err := pull(&image.Request{Source: source}, c.Bool("quiet"))
			var names []string
			for _, img := range images {
				for _, name := range img.Names {
					names = append(names, image.Familiar(name))
				}
				if len(img.Names) == 0 {
					names = append(names, img.Title())
				}
			}
			return errors.Join(printLines(os.Stdout, names), err)
		},
	}
}

func imageImportCommand() *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "make an image of a root file system in a tar",
		ArgsUsage: "FILE NAME",
		Description: `FILE is a tar of a root file system, plain or compressed by gzip, zstd, xz or bzip2;
- is standard input.

Examples:
  podsh image import --cmd bash debian.tar.gz my/debian:12
  tar c -C rootfs . | podsh image import - scratch`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "set `KEY=VALUE`"},
			&cli.StringSliceFlag{Name: "entrypoint", Usage: "the entry point: a `WORD` of it, once for each"},
			&cli.StringSliceFlag{Name: "cmd", Usage: "the command: a `WORD` of it, once for each"},
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "be `UID[:GID]` or a user of the image's"},
			&cli.StringFlag{Name: "workdir", Aliases: []string{"w"}, Usage: "start in `DIR`"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usagef("podsh image import FILE NAME", "image import takes a file and a name, not %s", counted(c.NArg(), "argument", "arguments"))
			}
			name, err := image.ParseReference(c.Args().Get(1))
			if err != nil {
				return err
			}
			store, err := sandbox.OpenImages()
			if err != nil {
				return err
			}
			config := &image.Config{Env: c.StringSlice("env"), Entrypoint: c.StringSlice("entrypoint"), Cmd: c.StringSlice("cmd"), User: c.String("user"), WorkingDir: c.String("workdir")}
			images, err := sandbox.AskImages(&image.Request{Do: image.Import, Store: store.Path, File: c.Args().First(), Names: []string{name.String()}, Config: config},
				os.Stdin, nil, newProgress(false).ignore)
			return errors.Join(printIDs(images), err)
		},
	}
}

func printIDs(images []*image.Image) error {
	var ids []string
	for _, img := range images {
		ids = append(ids, img.ID)
	}
	return printLines(os.Stdout, ids)
}

// isTar says whether a root file system is a file, and so a tar of one.
func isTar(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// importTar makes an image without a name of a root file system in a tar. The same tar makes the same image.
func importTar(path string) (*image.Store, *image.Image, error) {
	store, err := sandbox.OpenImages()
	if err != nil {
		return nil, nil, err
	}
	images, err := sandbox.AskImages(&image.Request{Do: image.Import, Store: store.Path, File: path, Config: &image.Config{}}, nil, nil, newProgress(true).ignore)
	if err == nil && len(images) != 1 {
		err = fmt.Errorf("%s made %d images", path, len(images))
	}
	if err != nil {
		return nil, nil, err
	}
	return store, images[0], nil
}
