package command

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox"
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

func networkCreateCommand() *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "make a network and print its name",
		ArgsUsage: "NAME",
		Description: `Writes a network down; it comes into being with its first pod. Where nothing is
said it has a subnet of IPv4 that nobody else has, and a way out.

Examples:
  podsh network create front
  podsh network create back --internal --subnet 10.90.0.0/24
  podsh network create both --ipv6
  podsh network create six --subnet fd00:1234::/64    only IPv6
  podsh network create lan --conflist /etc/cni/net.d/10-lan.conflist`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "subnet", Usage: "its addresses, `CIDR`: one subnet of IPv4, of IPv6, or of both"},
			&cli.BoolFlag{Name: "ipv4", Value: true, Usage: "have a subnet of IPv4; --ipv4=false --ipv6: only one of IPv6"},
			&cli.BoolFlag{Name: "ipv6", Usage: "have a subnet of IPv6 as well"},
			&cli.BoolFlag{Name: "internal", Usage: "have no way out"},
			&cli.StringFlag{Name: "conflist", Usage: "be what a CNI configuration says, in `FILE`"},
		},
		Action: networkCreate,
	}
}

func networkLsCommand() *cli.Command {
	return &cli.Command{
		Name:  "ls",
		Usage: "list networks",
		Description: `Lists networks: their subnets, whether there is a way out (what CNI plugins do
is theirs to say), and how many pods that run are on them.

Examples:
  podsh network ls
  podsh network ls --json | jq -r '.[].subnets[]'`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print names only"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		},
		Action: networkLs,
	}
}

func networkInspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show everything known about networks, as JSON",
		ArgsUsage: "NETWORK...",
		Description: `Prints a JSON array: what each network is made of, where it is (host, or the pid
of the hub; empty before the first pod), and the pods that are on it.

Examples:
  podsh network inspect front | jq -r '.[0].pods[] | .name + " " + .addresses[0]'`,
		Action: networkInspect,
	}
}

func networkRmCommand() *cli.Command {
	return &cli.Command{
		Name:        "rm",
		Usage:       "remove networks that no pod is on",
		ArgsUsage:   "NETWORK...",
		Description: "Removes networks. One that a pod is on is refused.\n\nExamples:\n  podsh network rm front",
		Action:      networkRm,
	}
}

func networkPruneCommand() *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "remove all networks that no pod is on",
		Description: `Removes the networks that no pod is on, pods that have ended among them, and
prints their names.

Examples:
  podsh network prune`,
		Action: networkPrune,
	}
}

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

func networkCreate(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("podsh network create front", "network create takes one name, not %d", c.NArg())
	}
	spec := &sandbox.NetworkSpec{Name: c.Args().First(), IPv6: c.Bool("ipv6"), NoIPv4: !c.Bool("ipv4"), Internal: c.Bool("internal")}
	for _, text := range c.StringSlice("subnet") {
		subnet, err := netip.ParsePrefix(text)
		if err != nil {
			return usagef("--subnet CIDR, such as 10.90.0.0/24 or fd00:1234::/64", "--subnet %q is no subnet", text)
		}
		spec.Subnets = append(spec.Subnets, subnet)
	}
	file := c.String("conflist")
	if c.IsSet("conflist") {
		var err error
		if spec.Conflist, err = readConflist(file); err != nil {
			return usagef("--conflist FILE, such as /etc/cni/net.d/10-lan.conflist", "--conflist: %v", err)
		}
	}
	store, err := sandbox.OpenStore()
	if err != nil {
		return err
	}
	n, err := store.CreateNetwork(spec)
	switch {
	case err == nil:
		_, err = fmt.Println(n.Name)
	case file != "" && !errors.Is(err, sandbox.ErrInvalid) && !errors.Is(err, sandbox.ErrNameTaken):
		err = fmt.Errorf("--conflist %s: %w", file, err)
	}
	return err
}

// readConflist reads a file that a person has written: one that is larger was not.
func readConflist(name string) ([]byte, error) {
	const most = 1 << 20
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && len(text) > most {
		err = fmt.Errorf("%s: more than 1 MiB", name)
	}
	return text, err
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
func views(store *sandbox.Store, networks []*network.Network) ([]*networkView, error) {
	hub, err := store.Hub()
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
	pods, err := runningPods(store)
	if err != nil {
		return nil, err
	}
	for _, pod := range pods {
		state, err := pod.Net()
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

func networkLs(c *cli.Context) error {
	switch {
	case c.Args().Present():
		return usagef("`podsh network ls`, or `podsh network inspect "+c.Args().First()+"`", "network ls takes no arguments, not %q", c.Args().First())
	case c.Bool("quiet") && c.Bool("json"):
		return usagef("choose one of them", "-q and --json exclude each other")
	}
	store, err := sandbox.OpenStore()
	if err != nil {
		return err
	}
	networks, err := store.Networks()
	if err != nil {
		return err
	}
	if c.Bool("quiet") {
		var names []string
		for _, n := range networks {
			names = append(names, n.Name)
		}
		return printLines(os.Stdout, names)
	}
	list, err := views(store, networks)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return writeJSON(os.Stdout, list)
	}
	t := newTable(os.Stdout, "NAME", "SUBNETS", "WAY OUT", "PODS")
	for _, n := range list {
		t.row(n.Name, commas(n.Subnets), n.wayOut(), len(n.Pods))
	}
	return t.Flush()
}

func networkInspect(c *cli.Context) error {
	store, err := needNetworks(c)
	if err != nil {
		return err
	}
	var failed errorList
	var networks []*network.Network
	for _, name := range c.Args().Slice() {
		n, err := store.Network(name)
		failed.add(err)
		if err == nil {
			networks = append(networks, n)
		}
	}
	if len(networks) == 0 {
		return failed.last
	}
	list, err := views(store, networks)
	failed.add(err)
	if err == nil {
		failed.add(writeJSON(os.Stdout, list))
	}
	return failed.last
}

func networkRm(c *cli.Context) error {
	store, err := needNetworks(c)
	if err != nil {
		return err
	}
	var failed errorList
	for _, name := range c.Args().Slice() {
		failed.add(store.RemoveNetwork(name))
	}
	return failed.last
}

func networkPrune(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("podsh network rm "+c.Args().First(), "network prune takes no arguments, not %q", c.Args().First())
	}
	store, err := sandbox.OpenStore()
	if err != nil {
		return err
	}
	removed, err := store.PruneNetworks()
	return errors.Join(printLines(os.Stdout, removed), err)
}

// needNetworks opens the store for a command that takes networks.
func needNetworks(c *cli.Context) (*sandbox.Store, error) {
	if !c.Args().Present() {
		return nil, usagef(c.Command.HelpName+" front; `podsh network ls` lists them", "%s needs a network", called(c))
	}
	return sandbox.OpenStore()
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
	attached, err := pod.Connect(name, asked)
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
func endpoint(c *cli.Context, text string) (string, sandbox.Endpoint, error) {
	name, asked, err := sandbox.ParseEndpoint(text)
	for _, flag := range []string{"ip", "mac", "alias"} {
		for _, value := range c.StringSlice(flag) {
			if err == nil {
				err = asked.Add(flag, value)
			}
		}
	}
	return name, asked, err
}

func networkDisconnect(c *cli.Context) error {
	name, pod, err := networkAndPod(c)
	if err != nil {
		return err
	}
	return pod.Disconnect(name)
}

// networkAndPod reads the arguments NETWORK POD.
func networkAndPod(c *cli.Context) (name string, pod *sandbox.Pod, err error) {
	if c.NArg() != 2 {
		return "", nil, usagef(c.Command.HelpName+" front web", "%s takes a network and a pod", called(c))
	}
	store, err := sandbox.OpenStore()
	if err != nil {
		return "", nil, err
	}
	pod, err = store.Find(c.Args().Get(1))
	return c.Args().First(), pod, err
}
