package command

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/sandbox/disk"
)

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
			store, err := disk.OpenImages()
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
