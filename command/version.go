package command

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func Version() *cli.Command {
	return &cli.Command{
		Name:        "version",
		Usage:       "print the version",
		Description: "Prints the version of podsh.\n\nExamples:\n  podsh version",
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("`podsh version` alone", "version takes no arguments, not %q", c.Args().First())
			}
			_, err := fmt.Println("podsh", c.App.Version)
			return err
		},
	}
}
