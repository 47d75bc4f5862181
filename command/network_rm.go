package command

import (
	"errors"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox/store"
	"github.com/podsh/podsh/sandbox/wire"
)

func networkRmCommand() *cli.Command {
	return &cli.Command{
		Name:        "rm",
		Usage:       "remove networks that no pod is on",
		ArgsUsage:   "NETWORK...",
		Description: "Removes networks. One that a pod is on is refused.\n\nExamples:\n  podsh network rm front",
		Action:      networkRm,
	}
}

func networkRm(c *cli.Context) error {
	store, err := needNetworks(c)
	if err != nil {
		return err
	}
	var failed errorList
	for _, name := range c.Args().Slice() {
		failed.add(wire.RemoveNetwork(store, name))
	}
	return failed.last
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

func networkPrune(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("podsh network rm "+c.Args().First(), "network prune takes no arguments, not %q", c.Args().First())
	}
	store, err := store.OpenStore()
	if err != nil {
		return err
	}
	removed, err := wire.PruneNetworks(store)
	return errors.Join(printLines(os.Stdout, removed), err)
}
