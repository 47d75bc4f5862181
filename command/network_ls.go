package command

import (
	"os"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/store"
)

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

func networkLs(c *cli.Context) error {
	switch {
	case c.Args().Present():
		return usagef("`podsh network ls`, or `podsh network inspect "+c.Args().First()+"`", "network ls takes no arguments, not %q", c.Args().First())
	case c.Bool("quiet") && c.Bool("json"):
		return usagef("choose one of them", "-q and --json exclude each other")
	}
	store, err := store.OpenStore()
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
