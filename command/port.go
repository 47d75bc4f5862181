package command

import (
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
	"github.com/podsh/podsh/sandbox/wire"
)

func Port() *cli.Command {
	return &cli.Command{
		Name:  "port",
		Usage: "show and change the ports of pods that run",
		Description: `Ports of the host's lead to ports of pods, from podsh create --publish on or
from podsh port add.

Examples:
  podsh port add web 8443:443
  podsh port ls web`,
		Subcommands: []*cli.Command{portLsCommand(), portAddCommand(), portRmCommand()},
	}
}

func portLsCommand() *cli.Command {
	return &cli.Command{
		Name:      "ls",
		Usage:     "list published ports, and what goes through them",
		ArgsUsage: "[POD...]",
		Description: `Lists the ports of all pods that run, or of these: the host's end, which is a
number for all its addresses; how many connections there were (of UDP: how many
clients), how many are open, and the bytes that clients have sent (IN) and got
(OUT).

Examples:
  podsh port ls
  podsh port ls web --json | jq '.[].connections'`,
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Action: portLs,
	}
}

func portAddCommand() *cli.Command {
	return &cli.Command{
		Name:      "add",
		Usage:     "publish ports of a pod that runs",
		ArgsUsage: "POD PORT...",
		Description: `Publishes PORTs as podsh create --publish does, all or none, and prints them:
` + network.PortForm + `, where HOSTPORT 0 is any that is free,
and the ports may be ranges of the same size.

Examples:
  podsh port add web 8443:443
  podsh port add web 127.0.0.1:5353:53/udp 8000-8009:8000-8009`,
		Action: portAdd,
	}
}

func portRmCommand() *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "publish ports of a pod no longer",
		ArgsUsage: "POD PORT...",
		Description: `Closes PORTs, and the connections that go through them: all or none. The
host's end is enough to name one: [HOSTIP:]HOSTPORT[/tcp|/udp].

Examples:
  podsh port rm web 8443
  podsh port rm web 127.0.0.1:5353:53/udp`,
		Action: portRm,
	}
}

// portRow is a published port as `podsh port ls --json` shows it.
type portRow struct {
	Name string `json:"name"` // of the pod
	control.PortReport
}

func portLs(c *cli.Context) error {
	store, err := store.OpenStore()
	if err != nil {
		return err
	}
	pods, err := namedPods(store, c.Args().Slice())
	if !c.Args().Present() {
		pods, err = runningPods(store)
	}
	if err != nil {
		return err
	}
	ensureHelpers(pods)
	rows := []portRow{}
	var failed errorList
	for _, pod := range pods {
		more, err := portRows(pod)
		failed.add(err)
		rows = append(rows, more...)
	}
	show := portTable
	if c.Bool("json") {
		show = func(w io.Writer, rows []portRow) error { return writeJSON(w, rows) }
	}
	failed.add(show(os.Stdout, rows))
	return failed.last
}

// portRows asks the pod's helper, if it has something to do with ports.
func portRows(pod *pod.Pod) ([]portRow, error) {
	state, err := store.Net(pod)
	if err != nil || len(state.Ports) == 0 {
		return nil, err
	}
	report, err := wire.Report(pod)
	if err != nil || report == nil {
		return nil, err
	}
	var rows []portRow
	for _, port := range report.Ports {
		rows = append(rows, portRow{pod.Spec.Name, port})
	}
	return rows, nil
}

func portTable(w io.Writer, rows []portRow) error {
	t := newTable(w, "POD", "HOST", "POD-PORT", "PROTOCOL", "CONNECTIONS", "OPEN", "IN", "OUT")
	for _, r := range rows {
		name := r.Name
		if name == "" {
			name = r.Pod
		}
		t.row(name, r.Listens(), r.PodPort, r.Protocol, r.Connections, r.Open, size(r.BytesIn), size(r.BytesOut))
	}
	return t.Flush()
}

func portAdd(c *cli.Context) error {
	pod, ports, err := podAndPorts(c, network.ParsePorts, network.PortForm+", such as 8080:80, 127.0.0.1:5353:53/udp, or 0:80 for any that is free")
	if err != nil {
		return err
	}
	published, err := wire.Publish(pod, ports)
	if err != nil {
		return err
	}
	return printLines(os.Stdout, published)
}

func portRm(c *cli.Context) error {
	pod, ports, err := podAndPorts(c, network.ParsePublished, "[HOSTIP:]HOSTPORT[/tcp|/udp]; `podsh port ls` shows what there is")
	if err != nil {
		return err
	}
	return wire.Unpublish(pod, ports)
}

// podAndPorts reads the arguments POD PORT..., where a port has a form.
func podAndPorts(c *cli.Context, parse func(string) ([]network.Port, error), form string) (*pod.Pod, []network.Port, error) {
	hint := c.Command.HelpName + " POD " + form
	if c.NArg() < 2 {
		return nil, nil, usagef(hint, "%s needs a pod and ports", called(c))
	}
	var ports []network.Port
	for _, text := range c.Args().Tail() {
		more, err := parse(text)
		if err != nil {
			return nil, nil, usagef(hint, "%s: %v", called(c), err)
		}
		ports = append(ports, more...)
	}
	store, err := store.OpenStore()
	if err != nil {
		return nil, nil, err
	}
	pod, err := store.Find(c.Args().First())
	return pod, ports, err
}

// arrows writes ports as a list shows them: 8080->80/tcp; of many, the first few.
func arrows(ports []network.Port) string {
	const most = 3
	var shown []string
	for _, p := range ports[:min(most, len(ports))] {
		shown = append(shown, p.Listens()+"->"+strconv.Itoa(int(p.PodPort))+"/"+p.Protocol)
	}
	if len(ports) > most {
		shown = append(shown, "…")
	}
	return strings.Join(shown, ",")
}
