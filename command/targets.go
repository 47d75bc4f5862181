package command

import (
	"fmt"
	"slices"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
)

// refuseHub says why the hub is left alone: what is done to it is done to the network of all that are in it.
func refuseHub(c *cli.Context, hub *pod.Pod) error {
	return usagef("it goes with the last of them: podsh rm -f --all removes all", "%s: pod %q is the hub of the pods on networks", called(c), hub.Title())
}

// findTarget finds a pod or a container; a pod whose description can't be read can only be removed.
func findTarget(c *cli.Context, store *store.Store, ref string) (*pod.Pod, *pod.Container, error) {
	pod, container, err := store.FindTarget(ref)
	if pod != nil && c.Command.Name == "rm" {
		return pod, nil, nil
	}
	return pod, container, err
}

// eachTarget does something to each pod and container that is named. One that fails does not keep the others from
// it: all errors are reported, the last by main.
func eachTarget(c *cli.Context, toPod func(*pod.Pod) error, toContainer func(*pod.Container) error) error {
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
func needPods(c *cli.Context) (*store.Store, error) {
	if !c.Args().Present() {
		return nil, needsPod(c)
	}
	return store.OpenStore()
}

func needsPod(c *cli.Context) error {
	return usagef(fmt.Sprintf("%s %s: an id, the start of one, or a name; `podsh ps -a` lists them",
		c.Command.HelpName, c.Command.ArgsUsage), "%s needs a pod", called(c))
}

// eachTargetAtOnce is eachTarget for what takes its time: to all at the same time, containers first, reported in their
// order.
func eachTargetAtOnce(c *cli.Context, toPod func(*pod.Pod) (say func(), err error), toContainer func(*pod.Container) (say func(), err error)) error {
	store, err := needPods(c)
	if err != nil {
		return err
	}
	var failed errorList
	var pods []*pod.Pod
	var containers []*pod.Container
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

// eachContainer does something to each container that is named.
func eachContainer(c *cli.Context, do func(*pod.Container) error) error {
	if !c.Args().Present() {
		return usagef(c.Command.HelpName+" POD/NAME; `podsh ps -c -a` lists them", "%s needs a container", called(c))
	}
	store, err := store.OpenStore()
	if err != nil {
		return err
	}
	var failed errorList
	for _, ref := range c.Args().Slice() {
		container, err := store.FindContainer(ref)
		if err == nil {
			err = do(container)
		}
		failed.add(err)
	}
	return failed.last
}

// oneContainer finds the one container that is named.
func oneContainer(c *cli.Context) (*pod.Container, error) {
	if c.NArg() != 1 {
		return nil, usagef(c.Command.HelpName+" POD/NAME; `podsh ps -c` lists them", "%s takes one container, not %d", called(c), c.NArg())
	}
	store, err := store.OpenStore()
	if err != nil {
		return nil, err
	}
	return store.FindContainer(c.Args().First())
}

// namedPods finds pods that have something to show; one that has ended has nothing.
func namedPods(s *store.Store, refs []string) ([]*pod.Pod, error) {
	var pods []*pod.Pod
	for _, ref := range refs {
		pod, err := s.Find(ref)
		if err != nil {
			return nil, err
		}
		pidfd, err := store.Open(pod)
		if err != nil {
			return nil, err
		}
		pidfd.Close()
		pods = append(pods, pod)
	}
	return pods, nil
}

// runningPods lists the pods that have something to show.
func runningPods(s *store.Store) ([]*pod.Pod, error) {
	pods, err := s.List()
	return slices.DeleteFunc(pods, func(p *pod.Pod) bool { return store.StatusOf(p) != pod.Running }), err
}
