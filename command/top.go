package command

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/member"
	"github.com/podsh/podsh/sandbox/store"
)

func Top() *cli.Command {
	return &cli.Command{
		Name:      "top",
		Usage:     "show the processes of a pod",
		ArgsUsage: "POD",
		Description: `Lists the pod's processes, the pause first: the pid on the host and in the
pod, the user in the pod (? if the pod has no number for it), state, memory,
age and processor time. It reads /proc from outside, so it needs no program
in the pod.

Examples:
  podsh top web
  podsh top web --json | jq '.[] | select(.state == "Z")'`,
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Action: top,
	}
}

func top(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("`podsh top POD`: an id, the start of one, or a name", "top takes one pod, not %d", c.NArg())
	}
	s, err := store.OpenStore()
	if err != nil {
		return err
	}
	pod, err := s.Find(c.Args().First())
	if errors.Is(err, fault.ErrNoPod) {
		if container, otherErr := s.FindContainer(c.Args().First()); otherErr == nil {
			err = usagef("podsh top "+store.Ref(container.InPod())+" shows the processes of the whole pod", "top takes a pod, and %q is a container", container.Title())
		}
	}
	if err != nil {
		return err
	}
	processes, err := member.Processes(pod)
	if err != nil {
		return err
	}
	if pod.MemberNamespace() == "" {
		warnNoMembers(pod)
	}
	if c.Bool("json") {
		return writeJSON(os.Stdout, processes)
	}
	t := newTable(os.Stdout, "PID", "POD-PID", "UID", "STATE", "RSS", "AGE", "TIME", "COMMAND")
	for i := range processes {
		p := &processes[i]
		uid := "?"
		if p.UID != nil {
			uid = fmt.Sprint(*p.UID)
		}
		cpu := int(p.CPU)
		t.row(p.PID, p.PodPID, uid, p.State, size(p.RSS), age(time.Since(p.Started)),
			fmt.Sprintf("%d:%02d", cpu/60, cpu%60), p.CommandLine())
	}
	return t.Flush()
}
