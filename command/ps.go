package command

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/member"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
	"github.com/podsh/podsh/sandbox/view"
	"github.com/podsh/podsh/sandbox/wire"
)

func Ps() *cli.Command {
	return &cli.Command{
		Name:    "ps",
		Aliases: []string{"ls"},
		Usage:   "list pods, or containers",
		Description: `Lists the pods that run: id, name, age, status, the pid of the pause on the
host, the number of processes, the pause among them (? where nothing
tells them from others: podsh inspect says more), the first address of IPv4 and
the published ports. With -a there is also the hub, if pods are on networks.

With -c it lists containers: those that run, with -a also those that have ended.

FORMAT is json, a Go template for each, or table and a template. Its fields are
` + psFields + `
and with -c ` + containerFields + `

Examples:
  podsh ps -a                                   also those that have ended
  podsh ps -c                                   the containers of all pods
  podsh ps --format '{{.PID}} {{.Name}}'
  podsh ps -c --format 'table {{.Name}}\t{{.Status}}'
  podsh ps --json | jq -r '.[].id'`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "containers", Aliases: []string{"c"}, Usage: "list containers"},
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "also pods that have ended (exited), and those whose description can't be read (broken)"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print ids only, of containers POD/NAME"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.StringFlag{Name: "format", Usage: "print it in a `FORMAT`: json, a Go template, or table and a template"},
		},
		Action: ps,
	}
}

// psRow is a pod as `podsh ps` shows it: the JSON and the fields of templates.
type psRow struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Created   *time.Time        `json:"created"` // null: broken
	Status    pod.Status        `json:"status"`
	PID       int               `json:"pid"`
	Processes count             `json:"processes"`
	Hostname  string            `json:"hostname"`
	Labels    map[string]string `json:"labels"`
	Addresses []netip.Addr      `json:"addresses"`
	Ports     []network.Port    `json:"ports"`
	Networks  []string          `json:"networks"`
	Hub       bool              `json:"hub"` // networks are in it
}

const psFields = "ID Name Age Created Status PID Processes Hostname Labels Address Addresses Ports Networks Hub"

var podViews = listViews[psRow]{table: psTable, quiet: psQuiet, fields: psFields, sample: psRow{Created: &time.Time{}, Labels: map[string]string{},
	Addresses: make([]netip.Addr, 1), Ports: make([]network.Port, 1), Networks: make([]string, 1)}}

// Address is the first of IPv4, or of IPv6 where there is no other.
func (r psRow) Address() string {
	if i := slices.IndexFunc(r.Addresses, netip.Addr.Is4); i >= 0 {
		return r.Addresses[i].String()
	}
	if len(r.Addresses) > 0 {
		return r.Addresses[0].String()
	}
	return ""
}

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
	if c.Bool("containers") {
		return psContainers(c)
	}
	show, err := podViews.chosen(c)
	if err != nil {
		return err
	}
	pods, err := allPods(c)
	if err != nil {
		return err
	}
	rows, err := psRows(pods, c.Bool("all"), !c.Bool("quiet"))
	if err != nil {
		return err
	}
	return show(os.Stdout, rows)
}

// allPods lists the pods, and clears away what killed commands have left.
func allPods(c *cli.Context) ([]*pod.Pod, error) {
	store, err := store.OpenStore()
	if err != nil {
		return nil, err
	}
	sweep(store)
	if c.Bool("all") {
		tellLost()
	}
	return store.List()
}

// ensureHelpers starts helpers anew that have ended, and tells of it.
func ensureHelpers(pods []*pod.Pod) {
	for _, w := range wire.EnsureHelpers(pods) {
		warn(w)
	}
}

// sweep clears away what killed commands have left. That it could not is worth a word, and no more.
func sweep(store *store.Store) {
	if err := store.Sweep(); err != nil {
		warn(fmt.Errorf("leftovers of a command that was killed stay in %s: %v", store.Path, err))
	}
}

// tellLost tells of what containers wrote whose pods are not described any more.
func tellLost() {
	lost, err := store.Lost()
	switch {
	case err != nil:
		warn(err)
	case len(lost) > 0:
		warn(hinted(fmt.Errorf("%s ended with the machine or the last logout, and what they wrote is still in %s", counted(len(lost), "container or pod", "containers or pods"), filepath.Dir(lost[0])),
			"look at it there, and copy what you want; podsh rm --lost removes it"))
	}
}

func psRows(pods []*pod.Pod, all, processes bool) ([]psRow, error) {
	statuses := store.Statuses(pods)
	var running []*pod.Pod
	for i, p := range pods {
		if statuses[i] == pod.Running {
			running = append(running, p)
		}
	}
	nets := netsOf(running)
	members := map[string][]int{}
	if processes {
		var err error
		if members, err = member.Members(running); err != nil {
			return nil, err
		}
	}
	rows := []psRow{}
	for i, p := range pods {
		if !all && (statuses[i] != pod.Running || p.IsHub) {
			continue
		}
		row := newRow(p)
		row.Status = statuses[i]
		if row.Status != pod.Broken {
			row.Created = &p.Created
		}
		if row.Status == pod.Running {
			row.PID, row.Processes = p.Holder.PID, unknown
			if p.MemberNamespace() != "" {
				row.Processes = count(1 + len(members[p.ID]))
			}
			row.addNet(nets[p.ID])
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// newRow is what a pod's description says of it.
func newRow(p *pod.Pod) psRow {
	row := psRow{ID: p.ID, Name: p.Spec.Name, Hostname: p.Hostname, Labels: p.Spec.Labels, Hub: p.IsHub,
		Addresses: []netip.Addr{}, Ports: []network.Port{}, Networks: []string{}}
	if row.Labels == nil {
		row.Labels = map[string]string{}
	}
	return row
}

// netsOf reads what the networks of pods are like, by id, and looks after their helpers.
func netsOf(pods []*pod.Pod) map[string]*pod.NetState {
	nets := map[string]*pod.NetState{}
	var served []*pod.Pod
	for i, state := range view.Nets(pods) {
		if state == nil || state.Served {
			served = append(served, pods[i]) // nil: ensureHelpers says why
		}
		nets[pods[i].ID] = state
	}
	ensureHelpers(served)
	return nets
}

// addNet adds what the pod's network is like, if that is known.
func (r *psRow) addNet(state *pod.NetState) {
	if state == nil {
		return
	}
	r.Addresses, r.Ports = append(r.Addresses, state.Addresses...), append(r.Ports, state.Ports...)
	for _, a := range state.Attachments {
		r.Networks = append(r.Networks, a.Network)
	}
}

func psTable(w io.Writer, rows []psRow) error {
	t := newTable(w, "ID", "NAME", "AGE", "STATUS", "PID", "PROCESSES", "ADDRESS", "PORTS")
	for _, r := range rows {
		pid, name := "", r.Name
		if r.PID != 0 {
			pid = fmt.Sprint(r.PID)
		}
		if r.Hub {
			name = view.HubName
		}
		t.row(r.ID, name, r.Age(), r.Status, pid, r.Processes, r.Address(), arrows(r.Ports))
	}
	return t.Flush()
}

func psQuiet(w io.Writer, rows []psRow) error {
	var ids []string
	for _, r := range rows {
		ids = append(ids, r.ID)
	}
	return printLines(w, ids)
}
