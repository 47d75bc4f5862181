package command

import (
	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/sandbox/disk"
)

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
			store, err := disk.OpenImages()
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
