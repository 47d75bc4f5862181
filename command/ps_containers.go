package command

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/store"
)

// containerRow is a container as `podsh ps -c` shows it.
type containerRow struct {
	ID       string              `json:"id"`
	Name     string              `json:"name"`
	Pod      string              `json:"pod"`
	PodID    string              `json:"pod_id"`
	Image    string              `json:"image"`
	Command  []string            `json:"command"`
	Created  time.Time           `json:"created"`
	Labels   map[string]string   `json:"labels"`
	Detached bool                `json:"detached"`
	PID      int                 `json:"pid"` // 0: it does not run
	State    *pod.ContainerState `json:"state"`
}

// Status is what the container does in one word or two.
func (r containerRow) Status() string {
	switch r.State.Status {
	case pod.Ended:
		return fmt.Sprintf("exited (%d)", r.State.ExitCode)
	case pod.Restarting:
		if wait := time.Until(r.State.RestartAt).Round(time.Second); wait > 0 {
			return fmt.Sprintf("restarting in %v", wait)
		}
	}
	return string(r.State.Status)
}

// Age is how long ago the container was made.
func (r containerRow) Age() string { return age(time.Since(r.Created)) }

const containerFields = "ID Name Pod PodID Image Command Created Age Labels Detached PID Status State"

var containerViews = listViews[containerRow]{table: containersTable, quiet: containersQuiet, fields: containerFields,
	sample: containerRow{Command: make([]string, 1), Labels: map[string]string{}, State: &pod.ContainerState{}}}

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
	for _, p := range pods {
		for _, problem := range sandbox.RecoverContainers(p) {
			warn(problem)
		}
		of, err := containerRows(p)
		if err != nil {
			return err
		}
		for _, row := range of {
			if c.Bool("all") || row.State.Status != pod.Ended && row.State.Status != pod.Created {
				rows = append(rows, row)
			}
		}
	}
	return show(os.Stdout, rows)
}

func containerRows(p *pod.Pod) ([]containerRow, error) {
	containers, err := store.Containers(p)
	if err != nil {
		return nil, err
	}
	var rows []containerRow
	for _, container := range containers {
		state, err := store.StateOf(container)
		if err != nil {
			continue // removed meanwhile
		}
		row := containerRow{ID: container.ID, Name: container.Name, Pod: p.Title(), PodID: p.ID, Image: imageOf(container), Command: container.Argv,
			Created: container.Created, Labels: container.Spec.Labels, Detached: container.Spec.Detached, State: state}
		if row.Labels == nil {
			row.Labels = map[string]string{}
		}
		if state.Status == pod.Up {
			row.PID = state.Process.PID
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// imageOf is what a container is made of, in short.
func imageOf(container *pod.Container) string {
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
		t.row(r.Pod, r.Name, r.ID, r.Image, shorten(proc.Printable(strings.Join(r.Command, " ")), 30), r.Age(), r.Status(), pid, r.State.Restarts)
	}
	return t.Flush()
}
