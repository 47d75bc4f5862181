package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox"
	"github.com/podsh/podsh/sandbox/crilog"
)

// containerRow is a container as `podsh ps -c` shows it.
type containerRow struct {
	ID       string                  `json:"id"`
	Name     string                  `json:"name"`
	Pod      string                  `json:"pod"`
	PodID    string                  `json:"pod_id"`
	Image    string                  `json:"image"`
	Command  []string                `json:"command"`
	Created  time.Time               `json:"created"`
	Labels   map[string]string       `json:"labels"`
	Detached bool                    `json:"detached"`
	PID      int                     `json:"pid"` // 0: it does not run
	State    *sandbox.ContainerState `json:"state"`
}

// Status is what the container does in one word or two.
func (r containerRow) Status() string {
	switch r.State.Status {
	case sandbox.Ended:
		return fmt.Sprintf("exited (%d)", r.State.ExitCode)
	case sandbox.Restarting:
		if wait := time.Until(r.State.RestartAt).Round(time.Second); wait > 0 {
			return fmt.Sprintf("restarting in %v", wait)
		}
	}
	return string(r.State.Status)
}

const containerFields = "ID Name Pod PodID Image Command Created Age Labels Detached PID Status State"

var containerViews = listViews[containerRow]{table: containersTable, quiet: containersQuiet, fields: containerFields,
	sample: containerRow{Command: make([]string, 1), Labels: map[string]string{}, State: &sandbox.ContainerState{}}}

// Age is how long ago the container was made.
func (r containerRow) Age() string { return age(time.Since(r.Created)) }

// psContainers lists the containers of all pods.
func psContainers(c *cli.Context) error {
	show, err := containerViews.chosen(c)
	if err != nil {
		return err
	}
	pods, err := allPods(c)
	if err != nil {
		return err
	}
	rows := []containerRow{}
	for _, pod := range pods {
		for _, problem := range pod.RecoverContainers() {
			warn(problem)
		}
		of, err := containerRows(pod)
		if err != nil {
			return err
		}
		for _, row := range of {
			if c.Bool("all") || row.State.Status != sandbox.Ended && row.State.Status != sandbox.Created {
				rows = append(rows, row)
			}
		}
	}
	return show(os.Stdout, rows)
}

func containerRows(pod *sandbox.Pod) ([]containerRow, error) {
	containers, err := pod.Containers()
	if err != nil {
		return nil, err
	}
	var rows []containerRow
	for _, container := range containers {
		state, err := container.State()
		if err != nil {
			continue // removed meanwhile
		}
		row := containerRow{ID: container.ID, Name: container.Name, Pod: pod.Title(), PodID: pod.ID, Image: imageOf(container), Command: container.Argv,
			Created: container.Created, Labels: container.Spec.Labels, Detached: container.Spec.Detached, State: state}
		if row.Labels == nil {
			row.Labels = map[string]string{}
		}
		if state.Status == sandbox.Up {
			row.PID = state.Process.PID
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// imageOf is what a container is made of, in short.
func imageOf(container *sandbox.Container) string {
	if container.Image.Name != "" {
		return container.Image.Name
	}
	return strings.Join(append(container.Root.Layers, container.Root.Dir), "")
}

func containersQuiet(w io.Writer, rows []containerRow) error {
	var names []string
	for _, r := range rows {
		names = append(names, r.Pod+"/"+r.Name)
	}
	return printLines(w, names)
}

func containersTable(w io.Writer, rows []containerRow) error {
	t := newTable(w, "POD", "NAME", "ID", "IMAGE", "COMMAND", "AGE", "STATUS", "PID", "RESTARTS")
	for _, r := range rows {
		pid := ""
		if r.PID != 0 {
			pid = fmt.Sprint(r.PID)
		}
		t.row(r.Pod, r.Name, r.ID, r.Image, shorten(sandbox.Printable(strings.Join(r.Command, " ")), 30), r.Age(), r.Status(), pid, r.State.Restarts)
	}
	return t.Flush()
}

// shorten cuts a text that is too long for a column.
func shorten(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

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
	path, err := container.Log()
	if err != nil || path == "" {
		return err
	}
	ctx := context.Background() // a signal ends podsh: there is nothing to clear away
	if options.Follow {
		wake := make(chan struct{})
		options.Wake = wake
		options.Ended = container.HasEnded
		go func() {
			container.AwaitEnd(ctx)
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

func Start() *cli.Command {
	return &cli.Command{
		Name:      "start",
		Usage:     "start containers that have ended once more",
		ArgsUsage: "CONTAINER...",
		Description: `Starts a container with what it wrote before. It runs as with -d: podsh logs and
podsh attach show its output.

Examples:
  podsh start web/app`,
		Action: func(c *cli.Context) error {
			return eachContainer(c, func(container *sandbox.Container) error {
				session, err := container.Start(nil)
				if err == nil {
					session.Close()
				}
				return err
			})
		},
	}
}

func Restart() *cli.Command {
	return &cli.Command{
		Name:      "restart",
		Usage:     "stop containers, and start them once more",
		ArgsUsage: "CONTAINER...",
		Description: `Asks a container to end, and makes it after a while; then starts it with what it
wrote before. The pod's addresses stay as they are.

Examples:
  podsh restart web/app
  podsh restart -t 60 web/db                    give it a minute`,
		Flags: []cli.Flag{&cli.IntFlag{Name: "time", Aliases: []string{"t"}, Value: 10, Usage: "wait `SECONDS` for it to end (default: its own)"}},
		Action: func(c *cli.Context) error {
			grace, err := graceOf(c)
			if err != nil {
				return err
			}
			return eachContainer(c, func(container *sandbox.Container) error {
				stubborn, err := container.Stop(0, grace)
				if stubborn {
					warnStubborn(container)
				}
				if err != nil {
					return err
				}
				session, err := container.Start(nil)
				if err == nil {
					session.Close()
				}
				return err
			})
		},
	}
}

// seconds is a time of so many; a century is as good as for ever.
func seconds(n int) time.Duration {
	return time.Duration(min(n, 100*365*24*3600)) * time.Second
}

// graceOf reads -t, where it is given.
func graceOf(c *cli.Context) (*time.Duration, error) {
	if c.Int("time") < 0 {
		return nil, usagef("-t 0 does not wait at all", "-t %d: no time to wait", c.Int("time"))
	}
	if !c.IsSet("time") {
		return nil, nil
	}
	grace := seconds(c.Int("time"))
	return &grace, nil
}

// eachContainer does something to each container that is named.
func eachContainer(c *cli.Context, do func(*sandbox.Container) error) error {
	if !c.Args().Present() {
		return usagef(c.Command.HelpName+" POD/NAME; `podsh ps -c -a` lists them", "%s needs a container", called(c))
	}
	store, err := sandbox.OpenStore()
	if err != nil {
		return err
	}
	var failed errorList
	for _, ref := range c.Args().Slice() {
		container, err := store.FindContainer(ref)
		if err == nil {
			err = do(container)
		}
		failed.add(err)
	}
	return failed.last
}

func warnStubborn(c *sandbox.Container) {
	warn(fmt.Errorf("container %q did not end when it was asked to: ended by SIGKILL", c.Title()))
}

// inspectContainer prints all that is known of a container.
func inspectContainer(container *sandbox.Container) (any, error) {
	state, err := container.State()
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
	whole["state"], whole["pod_name"], whole["log"] = state, container.InPod().Title(), container.LogPath()
	return whole, nil
}
