package command

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox/store"
)

// planFlags show what is done. forms are those that --dry-run takes.
func planFlags(forms string) []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "explain", Usage: "say what is done and why, while doing it"},
		&cli.GenericFlag{Name: "dry-run", Value: new(dryRun), Usage: "only show the plan: as " + forms},
	}
}

// dryRun is the value of --dry-run[=text|sh|json].
type dryRun string

func (d *dryRun) String() string { return string(*d) }

// IsBoolFlag lets it stand without a value: package flag then sets "true".
func (d *dryRun) IsBoolFlag() bool { return true }

func (d *dryRun) Set(value string) error {
	switch value {
	case "true":
		value = "text"
	case "text", "sh", "json":
	default:
		return fmt.Errorf("%q is none of text, sh, json", value)
	}
	*d = dryRun(value)
	return nil
}

func dryRunOf(c *cli.Context) string { return c.Generic("dry-run").(*dryRun).String() }

// openStore opens the store, or looks at it for a dry run, which makes nothing.
func openStore(dryRun bool) (*store.Store, error) {
	if dryRun {
		return store.LookAtStore()
	}
	return store.OpenStore()
}
