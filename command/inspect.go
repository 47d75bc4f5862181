package command

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
	"github.com/podsh/podsh/sandbox/view"
)

func Inspect() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show everything known about pods or containers, as JSON",
		ArgsUsage: "POD|CONTAINER...",
		Description: `Prints a JSON array: what was asked for (spec), the holder (pid, holder),
every namespace with its inode, the id maps, the mounts and the holder's
capabilities as the kernel has them now; the network with its addresses, ports,
helper, what went through them, and its limits with what is used of them. Of a
pod that has ended it shows what its description says. Of a container it shows
what was asked for, what it is made of, and its state.

Examples:
  podsh inspect web/app | jq '.[0].state.exit_code'
  podsh inspect web | jq '.[0].namespaces.net.inode'
  podsh inspect web | jq '.[0].network.ports[].connections'
  podsh inspect web | jq -r '.[0].mounts[].mount_point'`,
		Action: inspect,
	}
}

func inspect(c *cli.Context) error {
	inspections := []any{}
	err := eachTarget(c, func(p *pod.Pod) error {
		if store.StatusOf(p) == pod.Running {
			ensureHelpers([]*pod.Pod{p})
		}
		i, err := view.Inspect(p)
		if err != nil {
			return err
		}
		if i.Status == pod.Running && i.MembersBy == "" {
			warnNoMembers(p)
		}
		inspections = append(inspections, i)
		return nil
	}, func(container *pod.Container) error {
		i, err := inspectContainer(container)
		if err == nil {
			inspections = append(inspections, i)
		}
		return err
	})
	if len(inspections) == 0 && err != nil {
		return err
	}
	if writeErr := writeJSON(os.Stdout, inspections); writeErr != nil {
		return writeErr
	}
	return err
}

// warnNoMembers says why a pod seems to have no members.
func warnNoMembers(p *pod.Pod) {
	warn(fmt.Errorf("pod %q has no pid, mount or user namespace of its own: nothing tells its processes from others", p.Title()))
}

// inspectContainer prints all that is known of a container.
func inspectContainer(container *pod.Container) (any, error) {
	state, err := store.StateOf(container)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(container)
	if err != nil {
		return nil, err
	}
	whole := map[string]any{}
	if err := json.Unmarshal(text, &whole); err != nil {
		return nil, err
	}
	whole["state"], whole["pod_name"], whole["log"] = state, container.InPod().Title(), store.LogPath(container)
	return whole, nil
}
