package command

import (
	"fmt"
	"slices"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox"
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
	return eachTargetAtOnce(c, func(p *sandbox.Pod) (say func(), err error) {
		if p.IsHub {
			return func() {}, refuseHub(c, p)
		}
		stubborn, err := p.Stop(seconds(c.Int("time")))
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
	}, func(container *sandbox.Container) (say func(), err error) {
		stubborn, err := container.Stop(0, grace)
		return func() {
			if stubborn {
				warnStubborn(container)
			}
		}, err
	})
}

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
	sig, err := sandbox.ParseSignal(c.String("signal"))
	if err != nil {
		return err
	}
	return eachTarget(c, func(p *sandbox.Pod) error {
		if p.IsHub {
			return refuseHub(c, p)
		}
		n, err := p.Kill(sig)
		if n == 0 && err == nil {
			warn(fmt.Errorf("pod %q has no processes but the pause", p.Title()))
		}
		return err
	}, func(container *sandbox.Container) error { return container.Kill(sig) })
}

// refuseHub says why the hub is left alone: what is done to it is done to the network of all that are in it.
func refuseHub(c *cli.Context, hub *sandbox.Pod) error {
	return usagef("it goes with the last of them: podsh rm -f --all removes all", "%s: pod %q is the hub of the pods on networks", called(c), hub.Title())
}

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
			return eachTarget(c, (*sandbox.Pod).Wait, func(container *sandbox.Container) error {
				status, err := container.Wait()
				if err == nil {
					_, err = fmt.Println(status)
				}
				return err
			})
		},
	}
}

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
		return sandbox.RemoveLost()
	case all && c.Args().Present():
		return usagef("leave out --all, or the pods", "rm --all takes no pods, not %q", c.Args().First())
	case !all && !c.Args().Present():
		return needsPod(c)
	}
	store, err := sandbox.OpenStore()
	if err != nil {
		return err
	}
	sweep(store)
	remove := func(p *sandbox.Pod) (func(), error) { return func() {}, p.Remove(c.Bool("force")) }
	if !all {
		return eachTargetAtOnce(c, remove, func(container *sandbox.Container) (func(), error) {
			return func() {}, container.Remove(c.Bool("force"))
		})
	}
	pods, err := store.List()
	if err != nil {
		return err
	}
	var failed errorList
	isHub := func(p *sandbox.Pod) bool { return p.IsHub && p.Status() == sandbox.Running }
	failed.add(atOnce(slices.DeleteFunc(pods, isHub), remove))
	failed.add(store.ReleaseHub()) // the last pod in it takes it along, but there may have been none
	return failed.last
}

// findTarget finds a pod or a container; a pod whose description can't be read can only be removed.
func findTarget(c *cli.Context, store *sandbox.Store, ref string) (*sandbox.Pod, *sandbox.Container, error) {
	pod, container, err := store.FindTarget(ref)
	if pod != nil && c.Command.Name == "rm" {
		return pod, nil, nil
	}
	return pod, container, err
}

// eachTarget does something to each pod and container that is named. One that fails does not keep the others from
// it: all errors are reported, the last by main.
func eachTarget(c *cli.Context, toPod func(*sandbox.Pod) error, toContainer func(*sandbox.Container) error) error {
	store, err := needPods(c)
	if err != nil {
		return err
	}
	var failed errorList
	for _, ref := range c.Args().Slice() {
		pod, container, err := findTarget(c, store, ref)
		switch {
		case err != nil:
		case pod != nil:
			err = toPod(pod)
		default:
			err = toContainer(container)
		}
		failed.add(err)
	}
	return failed.last
}

// needPods opens the store for a command that takes pods.
func needPods(c *cli.Context) (*sandbox.Store, error) {
	if !c.Args().Present() {
		return nil, needsPod(c)
	}
	return sandbox.OpenStore()
}

func needsPod(c *cli.Context) error {
	return usagef(fmt.Sprintf("%s %s: an id, the start of one, or a name; `podsh ps -a` lists them",
		c.Command.HelpName, c.Command.ArgsUsage), "%s needs a pod", called(c))
}

// eachTargetAtOnce is eachTarget for what takes its time: to all at the same time, containers first, reported in their
// order.
func eachTargetAtOnce(c *cli.Context, toPod func(*sandbox.Pod) (say func(), err error), toContainer func(*sandbox.Container) (say func(), err error)) error {
	store, err := needPods(c)
	if err != nil {
		return err
	}
	var failed errorList
	var pods []*sandbox.Pod
	var containers []*sandbox.Container
	for _, ref := range c.Args().Slice() {
		pod, container, err := findTarget(c, store, ref)
		switch {
		case err != nil:
			failed.add(err)
		case pod != nil:
			pods = append(pods, pod)
		default:
			containers = append(containers, container)
		}
	}
	failed.add(atOnce(containers, toContainer))
	failed.add(atOnce(pods, toPod))
	return failed.last
}

func atOnce[T any](pods []T, do func(T) (say func(), err error)) error {
	const limit = 64 // each may hold the descriptors of many processes
	errs, says := make([]error, len(pods)), make([]func(), len(pods))
	room := make(chan bool, limit)
	var group sync.WaitGroup
	for i, p := range pods {
		room <- true
		group.Go(func() {
			says[i], errs[i] = do(p)
			<-room
		})
	}
	group.Wait()
	var failed errorList
	for i := range pods {
		says[i]()
		failed.add(errs[i])
	}
	return failed.last
}

// errorList reports all errors but the last, which it leaves to main.
type errorList struct{ last error }

func (l *errorList) add(err error) {
	if err == nil {
		return
	}
	if l.last != nil {
		report(nil, l.last)
	}
	l.last = err
}

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
