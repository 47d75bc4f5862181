package command

import (
	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox"
	"github.com/podsh/podsh/sandbox/pod"
)

func Restart() *cli.Command {
	return &cli.Command{
		Name:      "restart",
		Usage:     "stop containers, and start them once more",
		ArgsUsage: "CONTAINER...",
		Description: `Asks a container to end, and makes it after a while; then starts it with what it
wrote before. The pod's addresses stay as they are.

Examples:
  podsh restart web/app
  podsh restart -t 60 web/db                    give it a minute`,
		Flags: []cli.Flag{&cli.IntFlag{Name: "time", Aliases: []string{"t"}, Value: 10, Usage: "wait `SECONDS` for it to end (default: its own)"}},
		Action: func(c *cli.Context) error {
			grace, err := graceOf(c)
			if err != nil {
				return err
			}
			return eachContainer(c, func(container *pod.Container) error {
				stubborn, err := sandbox.StopContainer(container, 0, grace)
				if stubborn {
					warnStubborn(container)
				}
				if err != nil {
					return err
				}
				session, err := sandbox.Start(container, nil)
				if err == nil {
					session.Close()
				}
				return err
			})
		},
	}
}
