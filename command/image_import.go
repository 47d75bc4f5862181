package command

import (
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/sandbox/disk"
)

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
			store, err := disk.OpenImages()
			if err != nil {
				return err
			}
			config := &image.Config{Env: c.StringSlice("env"), Entrypoint: c.StringSlice("entrypoint"), Cmd: c.StringSlice("cmd"), User: c.String("user"), WorkingDir: c.String("workdir")}
			images, err := disk.AskImages(&image.Request{Do: image.Import, Store: store.Path, File: c.Args().First(), Names: []string{name.String()}, Config: config},
				os.Stdin, nil, newProgress(false).ignore)
			return errors.Join(printIDs(images), err)
		},
	}
}

// isTar says whether a root file system is a file, and so a tar of one.
func isTar(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// importTar makes an image without a name of a root file system in a tar. The same tar makes the same image.
func importTar(path string) (*image.Store, *image.Image, error) {
	store, err := disk.OpenImages()
	if err != nil {
		return nil, nil, err
	}
	images, err := disk.AskImages(&image.Request{Do: image.Import, Store: store.Path, File: path, Config: &image.Config{}}, nil, nil, newProgress(true).ignore)
	if err == nil && len(images) != 1 {
		err = fmt.Errorf("%s made %d images", path, len(images))
	}
	if err != nil {
		return nil, nil, err
	}
	return store, images[0], nil
}
