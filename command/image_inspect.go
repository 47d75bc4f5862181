package command

import (
	"errors"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/sandbox/proc"
)

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
					t.row(age(time.Since(h.Created)), shorten(proc.Printable(h.CreatedBy), 60), size(uint64(bytes)), shorten(proc.Printable(h.Comment), 40))
				}
				return t.Flush()
			})
		},
	}
}
