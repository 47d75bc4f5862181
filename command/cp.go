package command

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox/container"
	"github.com/podsh/podsh/sandbox/store"
)

func Cp() *cli.Command {
	return &cli.Command{
		Name:      "cp",
		Usage:     "copy files into a pod or container, or out of it",
		ArgsUsage: "SRC DST",
		Description: `One of SRC and DST is POD:PATH or POD/NAME:PATH, the other a path of the host.
Folders are copied with all in them; SRC/. means what is in a folder. In place of
a path of the host, - is a tar: of standard input, which is unpacked in a folder,
or to standard output. What comes out belongs to you, and what goes in to root. No
program in there is needed for it. The pod has to run; what a container has left
that has ended can be copied out. A file that is there is replaced by a whole one,
or not at all; a copy that is killed may leave a part of one as .podsh-cp-… With
--archive files out of a container may be setuid: for those only that you trust.

Examples:
  podsh cp ./nginx.conf web/nginx:/etc/nginx/
  podsh cp web/db:/var/lib/dump.sql .
  podsh cp web/db:/var/lib - | gzip >lib.tar.gz
  git archive HEAD | podsh cp - web/app:/srv`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "archive", Aliases: []string{"a"}, Usage: "keep owners, as numbers, and setuid and setgid"},
		},
		Action: cp,
	}
}

func cp(c *cli.Context) error {
	if c.NArg() != 2 {
		return usagef("podsh cp SRC POD/NAME:DST, or podsh cp POD/NAME:SRC DST", "cp takes two paths, not %d", c.NArg())
	}
	from, to := c.Args().Get(0), c.Args().Get(1)
	source, sourcePath, isOut := splitTarget(from)
	target, targetPath, isIn := splitTarget(to)
	if isOut == isIn {
		return usagef("podsh cp SRC POD/NAME:DST, or podsh cp POD/NAME:SRC DST; ./A:B is a file of the host's", "one of the two must be in a pod or container")
	}
	host, inside := to, sourcePath
	if isIn {
		host, inside = from, targetPath
	}
	switch {
	case host == "" || inside == "":
		return usagef(". is this folder, and POD:/ the root of the pod", "one of the two paths is empty")
	case host == "-" && isOut && isTerminal(os.Stdout):
		return usagef("podsh cp "+from+" - | tar t, or ./- for a file of that name", "a tar is not for a terminal")
	case host == "-" && isIn && isTerminal(os.Stdin):
		return usagef("tar c FILES | podsh cp - "+to+", or ./- for a file of that name", "there is no tar on this terminal")
	case host == "-" && isOut && c.Bool("archive"):
		return usagef("leave out --archive", "a tar has owners anyway")
	}
	whose, done, err := copyTarget(cmp.Or(source, target))
	if err != nil {
		return err
	}
	defer done()
	ctx, end := interruptible(func() {})
	warning, err := copyFiles(ctx, whose, container.Copy{From: cmp.Or(sourcePath, from), To: cmp.Or(targetPath, to), Owners: c.Bool("archive")}, isIn)
	if ctx.Err() != nil {
		done()
		end()
	}
	if err == nil && warning != "" {
		warn(errors.New(warning))
	}
	return err
}

// copyFiles copies into the pod, or out of it.
func copyFiles(ctx context.Context, whose *container.Files, files container.Copy, isIn bool) (warning string, err error) {
	switch {
	case isIn && files.From == "-":
		return "", container.CopyInTar(ctx, whose, os.Stdin, files.To, files.Owners)
	case isIn:
		if files.From, err = absolute(files.From); err != nil {
			return "", err
		}
		return container.CopyIn(ctx, whose, files)
	case files.To == "-":
		return container.CopyOutTar(ctx, whose, files.From, os.Stdout)
	}
	if files.To, err = absolute(files.To); err != nil {
		return "", err
	}
	return container.CopyOut(ctx, whose, files)
}

// splitTarget tells POD:PATH from a path of the host, which has a slash before any colon.
func splitTarget(text string) (ref, path string, ok bool) {
	ref, path, ok = strings.Cut(text, ":")
	if !ok || ref == "" || strings.HasPrefix(ref, "/") || strings.HasPrefix(ref, ".") {
		return "", "", false
	}
	return ref, path, true
}

// copyTarget finds whose files are meant; done lets go of them.
func copyTarget(ref string) (whose *container.Files, done func(), err error) {
	store, err := store.OpenStore()
	if err != nil {
		return nil, nil, err
	}
	pod, c, err := store.FindTarget(ref)
	if err == nil && c != nil {
		return container.OpenFiles(c)
	}
	return container.FilesOf(pod), func() {}, err
}

// absolute makes a path of the host absolute, with the links on the way to it followed; its last part stays as it is.
func absolute(path string) (string, error) {
	end := ""
	switch {
	case strings.HasSuffix(path, "/.") || path == ".":
		end = "/."
	case strings.HasSuffix(path, "/") || path == ".." || strings.HasSuffix(path, "/.."): // a folder, and no link
		end = "/"
	}
	whole, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(whole)); err == nil {
		whole = filepath.Join(dir, filepath.Base(whole))
	}
	return whole + end, nil
}
