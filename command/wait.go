package command

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox"
	"github.com/podsh/podsh/sandbox/pod"
)

func Wait() *cli.Command {
	return &cli.Command{
		Name:      "wait",
		Usage:     "wait until pods or containers have ended",
		ArgsUsage: "POD|CONTAINER...",
		Description: `Returns when all the pods have ended: by podsh stop or rm, or because the pause
was killed. Of a container the exit status is printed.

Examples:
  podsh wait web && echo web is gone
  podsh wait web/job`,
		Action: func(c *cli.Context) error {
			return eachTarget(c, func(pod *pod.Pod) error { return sandbox.WaitForPod(pod) }, func(container *pod.Container) error {
				status, err := sandbox.WaitForContainer(container)
				if err == nil {
					_, err = fmt.Println(status)
				}
				return err
			})
		},
	}
}
