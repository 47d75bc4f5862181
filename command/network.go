package command

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/store"
)

func Network() *cli.Command {
	return &cli.Command{
		Name:  "network",
		Usage: "make networks, and put pods on them",
		Description: `Pods on one network reach each other by name, and lead out to the internet.
Root's networks are on the host, if nft or iptables is installed; else, and for
an ordinary user, they are in the hub, a pod of podsh's own that is there as long
as pods need it.

Examples:
  podsh network create front
  podsh create --name web --net front
  podsh create --name db --net front
  podsh join web -- getent hosts db`,
		Subcommands: []*cli.Command{
			networkCreateCommand(), networkLsCommand(), networkInspectCommand(), networkRmCommand(), networkPruneCommand(),
			networkConnectCommand(), networkDisconnectCommand(),
		},
	}
}

// networkView is a network as `podsh network ls --json` and `podsh network inspect` show it.
type networkView struct {
	network.Network
	Where string       `json:"where"` // "host", "hub PID", or "" as long as there is none
	Pods  []networkPod `json:"pods"`
}

// networkPod is a pod on a network.
type networkPod struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	network.Attachment
}

// wayOut says whether pods get out over a network.
func (n *networkView) wayOut() string {
	switch {
	case n.Conflist != nil:
		return "plugins"
	case n.Internal:
		return "no"
	}
	return "yes"
}

// views looks which pods are on networks.
func views(s *store.Store, networks []*network.Network) ([]*networkView, error) {
	hub, err := s.Hub()
	if err != nil {
		return nil, err
	}
	where := ""
	switch {
	case hub == nil:
	case hub.Namespaces["net"].Kind == "host":
		where = "host"
	default:
		where = fmt.Sprintf("hub %d", hub.Holder.PID)
	}
	list := []*networkView{}
	byName := map[string]*networkView{}
	for _, n := range networks {
		view := &networkView{Network: *n, Where: where, Pods: []networkPod{}}
		list, byName[n.Name] = append(list, view), view
	}
	pods, err := runningPods(s)
	if err != nil {
		return nil, err
	}
	for _, pod := range pods {
		state, err := store.Net(pod)
		if err != nil {
			return nil, err
		}
		for _, a := range state.Attachments {
			if view := byName[a.Network]; view != nil {
				view.Pods = append(view.Pods, networkPod{pod.ID, pod.Spec.Name, a})
			}
		}
	}
	return list, nil
}

// needNetworks opens the store for a command that takes networks.
func needNetworks(c *cli.Context) (*store.Store, error) {
	if !c.Args().Present() {
		return nil, usagef(c.Command.HelpName+" front; `podsh network ls` lists them", "%s needs a network", called(c))
	}
	return store.OpenStore()
}
