package command

import (
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox"
	"github.com/podsh/podsh/sandbox/disk"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
)

func Rm() *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "remove pods or containers",
		ArgsUsage: "POD|CONTAINER... | --all | --lost",
		Description: `Removes pods that have ended, and what they wrote. A pod that runs is refused,
but with -f: then it is ended first, without asking its processes (podsh stop
asks them). So with a container; a pod that podsh run made for it goes with it.
What containers wrote, and the pod's volumes, goes too. Where a machine was started
anew, that stays until podsh rm --lost: podsh ps -a says what there is.

Examples:
  podsh rm web
  podsh rm -f web/app
  podsh rm -f web db
  podsh rm -f --all                             leave nothing`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "also pods that run"},
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "all pods"},
			&cli.BoolFlag{Name: "lost", Usage: "what containers wrote that ended with the machine, or with the last logout"},
		},
		Action: rm,
	}
}

func rm(c *cli.Context) error {
	all := c.Bool("all")
	switch {
	case c.Bool("lost") && (all || c.Args().Present()):
		return usagef("podsh rm --lost", "rm --lost goes with nothing else")
	case c.Bool("lost"):
		return disk.RemoveLost()
	case all && c.Args().Present():
		return usagef("leave out --all, or the pods", "rm --all takes no pods, not %q", c.Args().First())
	case !all && !c.Args().Present():
		return needsPod(c)
	}
	s, err := store.OpenStore()
	if err != nil {
		return err
	}
	sweep(s)
	remove := func(p *pod.Pod) (func(), error) { return func() {}, sandbox.Remove(p, c.Bool("force")) }
	if !all {
		return eachTargetAtOnce(c, remove, func(container *pod.Container) (func(), error) {
			return func() {}, sandbox.RemoveContainer(container, c.Bool("force"))
		})
	}
	pods, err := s.List()
	if err != nil {
		return err
	}
	var failed errorList
	isHub := func(p *pod.Pod) bool { return p.IsHub && store.StatusOf(p) == pod.Running }
	failed.add(atOnce(slices.DeleteFunc(pods, isHub), remove))
	failed.add(sandbox.ReleaseHub(s)) // the last pod in it takes it along, but there may have been none
	return failed.last
}
