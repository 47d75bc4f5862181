package command

import (
	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox"
	"github.com/podsh/podsh/sandbox/pod"
)

func Start() *cli.Command {
	return &cli.Command{
		Name:      "start",
		Usage:     "start containers that have ended once more",
		ArgsUsage: "CONTAINER...",
		Description: `Starts a container with what it wrote before. It runs as with -d: podsh logs and
podsh attach show its output.

Examples:
  podsh start web/app`,
		Action: func(c *cli.Context) error {
			return eachContainer(c, func(container *pod.Container) error {
				session, err := sandbox.Start(container, nil)
				if err == nil {
					session.Close()
				}
				return err
			})
		},
	}
}
