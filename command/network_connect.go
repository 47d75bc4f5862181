package command

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
	"github.com/podsh/podsh/sandbox/wire"
)

func networkConnectCommand() *cli.Command {
	return &cli.Command{
		Name:      "connect",
		Usage:     "put a pod that runs on one more network",
		ArgsUsage: "NETWORK POD",
		Description: `Gives the pod an interface on the network and prints its addresses there.
Without root the pod has to be in the hub: made with --net NETWORK or --net hub.

Examples:
  podsh network connect back web
  podsh network connect --ip 10.89.1.9 --alias db back web`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "ip", Usage: "have this `ADDRESS` there, of IPv4 or IPv6"},
			&cli.StringSliceFlag{Name: "mac", Aliases: []string{"mac-address"}, Usage: "have this hardware `ADDRESS` there"},
			&cli.StringSliceFlag{Name: "alias", Usage: "be called `NAME` there, too"},
		},
		Action: networkConnect,
	}
}

func networkConnect(c *cli.Context) error {
	text, pod, err := networkAndPod(c)
	if err != nil {
		return err
	}
	name, asked, err := endpoint(c, text)
	if err != nil {
		return err
	}
	attached, err := sandbox.Connect(pod, name, asked)
	if err != nil {
		return err
	}
	if !pod.Spec.Net.OnNetworks() {
		warn(fmt.Errorf("pod %q was made without networks: it reaches pods by address, but looks up no names (--net hub would have made it so)", pod.Title()))
	}
	var addresses []netip.Addr
	for _, address := range attached.Addresses {
		addresses = append(addresses, address.Addr())
	}
	return printLines(os.Stdout, addresses)
}

// endpoint reads what is asked for on a network: by flags, or behind its name as --net has it.
func endpoint(c *cli.Context, text string) (string, spec.Endpoint, error) {
	name, asked, err := spec.ParseEndpoint(text)
	for _, flag := range []string{"ip", "mac", "alias"} {
		for _, value := range c.StringSlice(flag) {
			if err == nil {
				err = asked.Add(flag, value)
			}
		}
	}
	return name, asked, err
}

func networkDisconnectCommand() *cli.Command {
	return &cli.Command{
		Name:      "disconnect",
		Usage:     "take a pod that runs off a network",
		ArgsUsage: "NETWORK POD",
		Description: `Removes the pod's interface on the network.

Examples:
  podsh network disconnect back web`,
		Action: networkDisconnect,
	}
}

func networkDisconnect(c *cli.Context) error {
	name, pod, err := networkAndPod(c)
	if err != nil {
		return err
	}
	return wire.Disconnect(pod, name)
}

// networkAndPod reads the arguments NETWORK POD.
func networkAndPod(c *cli.Context) (name string, pod *pod.Pod, err error) {
	if c.NArg() != 2 {
		return "", nil, usagef(c.Command.HelpName+" front web", "%s takes a network and a pod", called(c))
	}
	store, err := store.OpenStore()
	if err != nil {
		return "", nil, err
	}
	pod, err = store.Find(c.Args().Get(1))
	return c.Args().First(), pod, err
}
