package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox"
	"github.com/podsh/podsh/sandbox/crilog"
)

func Logs() *cli.Command {
	return &cli.Command{
		Name:      "logs",
		Usage:     "show what a container wrote",
		ArgsUsage: "CONTAINER",
		Description: `Shows the log of a container that ran with -d or -t: its output on standard
output, its errors on standard error. A terminal is shown escapes as text; what
is piped elsewhere, through cat, say, is what the container wrote.

Examples:
  podsh logs web/app
  podsh logs -f --tail 10 web/app
  podsh logs -t --since 10m web/app             with times, from ten minutes ago`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on until the container has ended"},
			&cli.StringFlag{Name: "tail", Aliases: []string{"n"}, Value: "all", Usage: "only the last `N` lines"},
			&cli.StringFlag{Name: "since", Usage: "only what was written after `TIME`: 2026-01-02T15:04:05Z, or 10m ago"},
			&cli.StringFlag{Name: "until", Usage: "only what was written before `TIME`"},
			&cli.BoolFlag{Name: "timestamps", Aliases: []string{"t"}, Usage: "put the time before each line"},
		},
		Action: logs,
	}
}

func logs(c *cli.Context) error {
	options := crilog.ReadOptions{Tail: -1, Timestamps: c.Bool("timestamps"), Follow: c.Bool("follow")}
	if tail := c.String("tail"); tail != "all" {
		if _, err := fmt.Sscanf(tail, "%d", &options.Tail); err != nil || options.Tail < 0 {
			return usagef("--tail N, or --tail all", "--tail %q is no number of lines", tail)
		}
	}
	var err error
	for flag, when := range map[string]*time.Time{"since": &options.Since, "until": &options.Until} {
		if *when, err = parseTime(flag, c.String(flag)); err != nil {
			return err
		}
	}
	container, err := oneContainer(c)
	if err != nil {
		return err
	}
	path, err := sandbox.Log(container)
	if err != nil || path == "" {
		return err
	}
	ctx := context.Background() // a signal ends podsh: there is nothing to clear away
	if options.Follow {
		wake := make(chan struct{})
		options.Wake = wake
		options.Ended = func() bool { return sandbox.HasEnded(container) }
		go func() {
			sandbox.AwaitEnd(ctx, container)
			close(wake)
		}()
	}
	stdout, stderr := shown(os.Stdout), shown(os.Stderr)
	return errors.Join(crilog.Read(ctx, path, options, stdout, stderr), stdout.Close(), stderr.Close())
}

// parseTime reads a time, or how long ago it was.
func parseTime(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil {
		return time.Now().Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if when, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return when, nil
		}
	}
	return time.Time{}, usagef("--"+flag+" 2026-01-02T15:04:05Z, or 10m for ten minutes ago", "--%s %q is no time", flag, text)
}
