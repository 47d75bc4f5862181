package command

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func Pause() *cli.Command {
	return &cli.Command{
		Name:  "pause",
		Usage: "be the pause program: hold namespaces, reap orphans, end on SIGTERM",
		Description: `Does what Kubernetes' pause does, so that any runtime can use podsh as its
infra container. It is meant to be the first process of a pid namespace.

Examples:
  unshare --map-root-user --pid --fork podsh pause`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "v", Usage: "print the version"}},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("podsh kill -s STOP "+c.Args().First()+" stops processes, and -s CONT lets them go on; `podsh pause` alone is the pause program", "pause takes no arguments, not %q", c.Args().First())
			}
			if !c.Bool("v") { // nsenter.c is the pause program, and takes over before Go starts
				return usagef("`podsh pause` alone, without set-user-id", "pause can't run this way")
			}
			_, err := fmt.Fprintln(c.App.Writer, "podsh pause", c.App.Version)
			return err
		},
	}
}
