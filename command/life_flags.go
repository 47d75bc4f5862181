package command

import (
	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
)

// lifeFlags are of a container's limits, its end, and what comes after it.
func lifeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "ulimit", Usage: "limit `NAME=SOFT[:HARD]`, such as nofile=1024"},
		&cli.StringFlag{Name: "restart", Value: "no", Usage: "start it once more when it ends: no, on-failure[:N] or always, as `POLICY` says"},
		&cli.StringFlag{Name: "stop-signal", Usage: "the `SIGNAL` that asks it to end (default: the image's, else TERM)"},
		&cli.IntFlag{Name: "stop-timeout", Value: 10, Usage: "`SECONDS` from that to SIGKILL"},
	}
}

// lifeSpec reads them.
func lifeSpec(c *cli.Context, asked *spec.ContainerSpec) (err error) {
	if asked.Restart, err = spec.ParseRestart(c.String("restart")); err != nil {
		return err
	}
	if text := c.String("stop-signal"); text != "" {
		sig, err := proc.ParseSignal(text)
		if err != nil {
			return err
		}
		asked.StopSignal = int(sig)
	}
	for _, text := range c.StringSlice("ulimit") {
		u, err := spec.ParseUlimit(text)
		if err != nil {
			return err
		}
		asked.Ulimits = append(asked.Ulimits, u)
	}
	if c.IsSet("stop-timeout") {
		grace := seconds(c.Int("stop-timeout"))
		asked.StopAfter = &grace
	}
	return nil
}
