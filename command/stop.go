package command

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox"
	"github.com/podsh/podsh/sandbox/pod"
)

func Stop() *cli.Command {
	return &cli.Command{
		Name:      "stop",
		Usage:     "end pods or containers in good order",
		ArgsUsage: "POD|CONTAINER...",
		Description: `Sends SIGTERM to every process of the pod, waits until they are gone, and ends
the pause; then the kernel ends what is left. The pod stays listed as exited
until podsh rm. Its containers are stopped first, each by its own signal and in its
own time; one alone is stopped by its name, and does not start by itself any more.
Several are stopped at the same time.

Examples:
  podsh stop web
  podsh stop web/app                            one container of the pod
  podsh stop -t 60 db                           give it a minute`,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "time", Aliases: []string{"t"}, Value: 10, Usage: "wait `SECONDS` for the processes to end (containers: their own)"},
		},
		Action: stop,
	}
}

func stop(c *cli.Context) error {
	grace, err := graceOf(c)
	if err != nil {
		return err
	}
	return eachTargetAtOnce(c, func(p *pod.Pod) (say func(), err error) {
		if p.IsHub {
			return func() {}, refuseHub(c, p)
		}
		stubborn, err := sandbox.Stop(p, seconds(c.Int("time")))
		return func() {
			if p.MemberNamespace() == "" && err == nil {
				warnNoMembers(p)
			}
			for _, c := range stubborn.Containers {
				warnStubborn(c)
			}
			for i := range stubborn.Processes {
				warn(fmt.Errorf("pod %q: process %d (%s) did not end within %d s of SIGTERM: ended by SIGKILL",
					p.Title(), stubborn.Processes[i].PID, stubborn.Processes[i].CommandLine(), c.Int("time")))
			}
		}, err
	}, func(container *pod.Container) (say func(), err error) {
		stubborn, err := sandbox.StopContainer(container, 0, grace)
		return func() {
			if stubborn {
				warnStubborn(container)
			}
		}, err
	})
}

// seconds is a time of so many; a century is as good as for ever.
func seconds(n int) time.Duration {
	return time.Duration(min(n, 100*365*24*3600)) * time.Second
}

// graceOf reads -t, where it is given.
func graceOf(c *cli.Context) (*time.Duration, error) {
	if c.Int("time") < 0 {
		return nil, usagef("-t 0 does not wait at all", "-t %d: no time to wait", c.Int("time"))
	}
	if !c.IsSet("time") {
		return nil, nil
	}
	grace := seconds(c.Int("time"))
	return &grace, nil
}

func warnStubborn(c *pod.Container) {
	warn(fmt.Errorf("container %q did not end when it was asked to: ended by SIGKILL", c.Title()))
}
