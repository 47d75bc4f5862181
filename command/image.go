package command

import (
	"os"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/sandbox/disk"
	"github.com/podsh/podsh/sandbox/store"
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

// lookForUse looks which images and layers containers have.
func lookForUse() (*image.Use, error) {
	_, use, err := imagesInUse()
	return use, err
}

func imagesInUse() (*image.Store, *image.Use, error) {
	images, err := disk.OpenImages()
	if err != nil {
		return nil, nil, err
	}
	store, err := store.OpenStore()
	if err != nil {
		return nil, nil, err
	}
	use, err := disk.ImageUse(store)
	return images, use, err
}

// eachImage does something with each image that is named.
func eachImage(c *cli.Context, do func(*image.Store, *image.Image, string) error) error {
	if !c.Args().Present() {
		return usagef(c.Command.HelpName+" NAME; `podsh image ls` lists them", "%s needs an image", called(c))
	}
	store, err := disk.OpenImages()
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

func printIDs(images []*image.Image) error {
	var ids []string
	for _, img := range images {
		ids = append(ids, img.ID)
	}
	return printLines(os.Stdout, ids)
}
