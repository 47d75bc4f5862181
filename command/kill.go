package command

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
)

func Kill() *cli.Command {
	return &cli.Command{
		Name:      "kill",
		Usage:     "send a signal to the processes of pods, or to containers",
		ArgsUsage: "POD|CONTAINER...",
		Description: `Sends a signal to every process of the pod but the pause: the pod itself goes
on. A container's command alone gets it, and if that ends it the restart policy
holds. SIGNAL is a name, with or without SIG, or a number, or RTMIN+N.

Examples:
  podsh kill -s HUP web
  podsh kill -s USR1 web/app
  podsh kill -s KILL web                        an empty pod is left`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "signal", Aliases: []string{"s"}, Value: "TERM", Usage: "which `SIGNAL`"},
		},
		Action: kill,
	}
}

func kill(c *cli.Context) error {
	sig, err := proc.ParseSignal(c.String("signal"))
	if err != nil {
		return err
	}
	return eachTarget(c, func(p *pod.Pod) error {
		if p.IsHub {
			return refuseHub(c, p)
		}
		n, err := sandbox.Kill(p, sig)
		if n == 0 && err == nil {
			warn(fmt.Errorf("pod %q has no processes but the pause", p.Title()))
		}
		return err
	}, func(container *pod.Container) error { return sandbox.KillContainer(container, sig) })
}
