package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/template"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox"
)

func psCommand() *cli.Command {
	return &cli.Command{
		Name:    "ps",
		Aliases: []string{"ls"},
		Usage:   "list pods",
		Description: `Lists the pods that run: id, name, age, status, the pid of the pause on the
host, and the number of processes, the pause among them (? where nothing
tells them from others: podsh inspect says more).

Fields of a TEMPLATE: ` + psFields + `

Examples:
  podsh ps -a                                   also those that have ended
  podsh ps --format '{{.PID}} {{.Name}}'
  podsh ps --json | jq -r '.[].id'`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "also pods that have ended (exited), and those whose description can't be read (broken)"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print ids only"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.StringFlag{Name: "format", Usage: "print each pod through a Go `TEMPLATE`"},
		},
		Action: ps,
	}
}

// psRow is a pod as `podsh ps` shows it: the JSON and the fields of templates.
type psRow struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Created   *time.Time        `json:"created"` // null: broken
	Status    sandbox.Status    `json:"status"`
	PID       int               `json:"pid"`
	Processes count             `json:"processes"`
	Hostname  string            `json:"hostname"`
	Labels    map[string]string `json:"labels"`
}

const psFields = "ID Name Age Created Status PID Processes Hostname Labels"

// Age is how long ago the pod was created.
func (r psRow) Age() string {
	if r.Created == nil {
		return ""
	}
	return age(time.Since(*r.Created))
}

// count is a number that may not be known.
type count int

const unknown count = -1

func (n count) String() string {
	if n == unknown {
		return "?"
	}
	return fmt.Sprint(int(n))
}

// MarshalJSON writes null for what is not known.
func (n count) MarshalJSON() ([]byte, error) {
	if n == unknown {
		return []byte("null"), nil
	}
	return json.Marshal(int(n))
}

func ps(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("`podsh ps | grep NAME`, or `podsh inspect NAME`", "ps takes no arguments, not %q", c.Args().First())
	}
	show, err := psView(c)
	if err != nil {
		return err
	}
	store, err := sandbox.OpenStore()
	if err != nil {
		return err
	}
	sweep(store)
	pods, err := store.List()
	if err != nil {
		return err
	}
	rows, err := psRows(pods, c.Bool("all"), !c.Bool("quiet"))
	if err != nil {
		return err
	}
	return show(os.Stdout, rows)
}

// sweep clears away what killed commands have left. That it could not is worth a word, and no more.
func sweep(store *sandbox.Store) {
	if err := store.Sweep(); err != nil {
		warn(fmt.Errorf("leftovers of a command that was killed stay in %s: %v", store.Path, err))
	}
}

func psRows(pods []*sandbox.Pod, all, processes bool) ([]psRow, error) {
	statuses := sandbox.Statuses(pods)
	var running []*sandbox.Pod
	for i, p := range pods {
		if statuses[i] == sandbox.Running {
			running = append(running, p)
		}
	}
	members := map[string][]int{}
	if processes {
		var err error
		if members, err = sandbox.Members(running); err != nil {
			return nil, err
		}
	}
	rows := []psRow{}
	for i, p := range pods {
		row := psRow{ID: p.ID, Name: p.Spec.Name, Status: statuses[i], Hostname: p.Hostname, Labels: p.Spec.Labels}
		if row.Status != sandbox.Broken {
			row.Created = &p.Created
		}
		if row.Status == sandbox.Running {
			row.PID, row.Processes = p.Holder.PID, unknown
			if p.MemberNamespace() != "" {
				row.Processes = count(1 + len(members[p.ID]))
			}
		} else if !all {
			continue
		}
		if row.Labels == nil {
			row.Labels = map[string]string{}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

type psShow func(w io.Writer, rows []psRow) error

// psView chooses how the list is shown.
func psView(c *cli.Context) (psShow, error) {
	view, chosen := psTable, 0
	if c.Bool("quiet") {
		view, chosen = psQuiet, chosen+1
	}
	if c.Bool("json") {
		view, chosen = func(w io.Writer, rows []psRow) error { return writeJSON(w, rows) }, chosen+1
	}
	if c.IsSet("format") {
		var err error
		if view, err = psTemplate(c.String("format")); err != nil {
			return nil, err
		}
		chosen++
	}
	if chosen > 1 {
		return nil, usagef("choose one of them", "-q, --json and --format exclude each other")
	}
	return view, nil
}

func psTable(w io.Writer, rows []psRow) error {
	t := newTable(w, "ID", "NAME", "AGE", "STATUS", "PID", "PROCESSES")
	for _, r := range rows {
		pid := ""
		if r.PID != 0 {
			pid = fmt.Sprint(r.PID)
		}
		t.row(r.ID, r.Name, r.Age(), r.Status, pid, r.Processes)
	}
	return t.Flush()
}

func psQuiet(w io.Writer, rows []psRow) error {
	var out strings.Builder
	for _, r := range rows {
		out.WriteString(r.ID + "\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// psTemplate reads a template and tries it on a pod, so that a wrong field is told even where there is no pod.
func psTemplate(text string) (psShow, error) {
	format, err := template.New("--format").Parse(text)
	if err == nil {
		err = format.Execute(io.Discard, psRow{Created: &time.Time{}, Labels: map[string]string{}})
	}
	if err != nil {
		return nil, usagef("fields: "+psFields+", as in --format '{{.ID}} {{.Name}}'", "malformed template: %s",
			strings.TrimPrefix(err.Error(), "template: "))
	}
	return func(w io.Writer, rows []psRow) error {
		var out bytes.Buffer
		for _, r := range rows {
			if err := format.Execute(&out, r); err != nil {
				return err
			}
			out.WriteByte('\n')
		}
		_, err := w.Write(out.Bytes())
		return err
	}, nil
}

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show everything known about pods, as JSON",
		ArgsUsage: "POD...",
		Description: `Prints a JSON array: what was asked for (spec), the holder (pid, holder),
every namespace with its inode, the id maps, the mounts and the holder's
capabilities as the kernel has them now. Of a pod that has ended it shows
what its description says.

Examples:
  podsh inspect web | jq '.[0].namespaces.net.inode'
  podsh inspect web | jq -r '.[0].mounts[].mount_point'`,
		Action: inspect,
	}
}

func inspect(c *cli.Context) error {
	inspections := []*sandbox.Inspection{}
	err := eachPod(c, func(p *sandbox.Pod) error {
		i, err := p.Inspect()
		if err != nil {
			return err
		}
		if i.Status == sandbox.Running && i.MembersBy == "" {
			warnNoMembers(p)
		}
		inspections = append(inspections, i)
		return nil
	})
	if len(inspections) == 0 && err != nil {
		return err
	}
	if writeErr := writeJSON(os.Stdout, inspections); writeErr != nil {
		return writeErr
	}
	return err
}

// warnNoMembers says why a pod seems to have no members.
func warnNoMembers(p *sandbox.Pod) {
	warn(fmt.Errorf("pod %q has no pid, mount or user namespace of its own: nothing tells its processes from others", p.Title()))
}

func topCommand() *cli.Command {
	return &cli.Command{
		Name:      "top",
		Usage:     "show the processes of a pod",
		ArgsUsage: "POD",
		Description: `Lists the pod's processes, the pause first: the pid on the host and in the
pod, the user in the pod (? if the pod has no number for it), state, memory,
age and processor time. It reads /proc from outside, so it needs no program
in the pod.

Examples:
  podsh top web
  podsh top web --json | jq '.[] | select(.state == "Z")'`,
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Action: top,
	}
}

func top(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("`podsh top POD`: an id, the start of one, or a name", "top takes one pod, not %d", c.NArg())
	}
	store, err := sandbox.OpenStore()
	if err != nil {
		return err
	}
	pod, err := store.Find(c.Args().First())
	if err != nil {
		return err
	}
	processes, err := pod.Processes()
	if err != nil {
		return err
	}
	if pod.MemberNamespace() == "" {
		warnNoMembers(pod)
	}
	if c.Bool("json") {
		return writeJSON(os.Stdout, processes)
	}
	t := newTable(os.Stdout, "PID", "POD-PID", "UID", "STATE", "RSS", "AGE", "TIME", "COMMAND")
	for i := range processes {
		p := &processes[i]
		uid := "?"
		if p.UID != nil {
			uid = fmt.Sprint(*p.UID)
		}
		cpu := int(p.CPU)
		t.row(p.PID, p.PodPID, uid, p.State, size(p.RSS), age(time.Since(p.Started)),
			fmt.Sprintf("%d:%02d", cpu/60, cpu%60), p.CommandLine())
	}
	return t.Flush()
}
