package command

import (
	"errors"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/sandbox/disk"
)

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
	_, err = disk.AskImages(&image.Request{Do: image.Save, Store: store.Path, Images: digests, Format: format, File: file}, nil, os.Stdout, newProgress(true).ignore)
	return hinted(err, "is the folder there, is there room, and may you write in it?")
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
