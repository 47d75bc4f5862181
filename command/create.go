package command

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox"
)

func Create() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "name", Aliases: []string{"n"}, Usage: "call the pod `NAME`"},
		&cli.StringFlag{Name: "hostname", Usage: "its host `NAME` (default: the name, else the id)"},
		&cli.StringSliceFlag{Name: "label", Aliases: []string{"l"}, Usage: "`KEY=VALUE` that inspect shows"},
		&cli.StringFlag{Name: "rootfs", Value: "host", Usage: "its root: host, a TAR, or `DIR[:overlay|:ro|:rw]`"},
		&cli.StringSliceFlag{Name: "volume", Aliases: []string{"v"}, Usage: "show a folder or file of the host, `SRC:DST[:ro]`"},
		&cli.StringSliceFlag{Name: "tmpfs", Usage: "mount a tmpfs on `DST`, with OPTIONS as DST:size=64m,mode=755,nr_inodes=1k,noexec"},
		&cli.BoolFlag{Name: "read-only", Usage: "make the root read-only; /run, /tmp and /var/tmp stay writable"},
		&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "`KEY=VALUE` for every command that joins"},
		&cli.StringSliceFlag{Name: "cap-add", Usage: "let commands have a `CAPABILITY` more, or ALL"},
		&cli.StringSliceFlag{Name: "cap-drop", Usage: "let commands have a `CAPABILITY` less, or ALL"},
		&cli.StringSliceFlag{Name: "unmask", Usage: "do not hide `PATH`, or all"},
		&cli.StringSliceFlag{Name: "uidmap", Usage: "map user ids, `IN:OUT:COUNT`"},
		&cli.StringSliceFlag{Name: "gidmap", Usage: "map group ids, `IN:OUT:COUNT` (default: as --uidmap)"},
		&cli.BoolFlag{Name: "keep-id", Usage: "be yourself inside: your ids are the same there"},
		explainFlag(), dryRunFlag("text`, sh or json"),
	}
	flags = append(flags, netFlags("")...)
	for _, ns := range sandbox.Namespaces {
		usage := fmt.Sprintf("%s: `new`, host, path:FILE or pod:OTHER", ns.Gives)
		if ns.Name == "net" {
			flags = append(flags, &cli.GenericFlag{Name: ns.Option, Value: new(netNames), Usage: "`NETWORK`: new, none, host, path:FILE, pod:OTHER, " +
				"outbound[:pasta|:slirp4netns][:subnet=CIDR], hub, or networks by name: NETWORK[:ip=ADDRESS,mac=ADDRESS,alias=NAME],..."})
			continue
		}
		if ns.Name == "time" {
			usage = "clocks: host, or `OFFSETS` such as boottime=+1d,monotonic=-30s"
		}
		flags = append(flags, &cli.StringFlag{Name: ns.Option, Usage: usage})
	}
	return &cli.Command{
		Name:  "create",
		Usage: "make a pod and print its id",
		Description: "The pod is held by a pause process until `podsh stop` or `podsh rm`.\n\n" +
			"Examples:\n" +
			"  podsh create --name web\n" +
			"  podsh create --name web --explain             and say what is done, and why\n" +
			"  podsh create --dry-run=sh >by-hand.sh         a script that does the same without podsh\n" +
			"  podsh create --rootfs ./debian --volume ./src:/src:ro\n" +
			"  podsh create --name db --net pod:web          share web's network\n" +
			"  podsh create --name web -p 8080:80            localhost:8080 leads to port 80 of the pod\n" +
			"  podsh create --name get --net outbound        a way out to the internet\n" +
			"  podsh create --name db --net front            on a network (podsh network create front)\n" +
			"  podsh create --net front:ip=10.89.0.9,alias=db --net back",
		Flags:  flags,
		Action: create,
	}
}

// netFlags are those of a new pod's network (netSpec); of says whose.
func netFlags(of string) []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "publish", Aliases: []string{"p"}, Usage: of + "lead a port of the host's to the pod, `" + network.PortForm + "`"},
		&cli.StringSliceFlag{Name: "dns", Usage: of + "ask this name `SERVER` rather than the host's"},
		&cli.StringSliceFlag{Name: "dns-search", Usage: of + "look names up in `DOMAIN`, too, rather than in the host's; . is none"},
		&cli.StringSliceFlag{Name: "dns-option", Usage: of + "look names up with `OPTION` of resolv.conf, such as ndots:2, rather than the host's"},
		&cli.StringSliceFlag{Name: "add-host", Usage: of + "a line for /etc/hosts, `NAME:IP`"},
		&cli.StringFlag{Name: "hosts-file", Usage: of + "more lines for /etc/hosts: of `FILE`, the host's (host), or none"},
		&cli.GenericFlag{Name: "host-access", Value: new(hostAccess), Usage: of + "reach the host, as " + network.HostName + " and by its addresses, or only `PORTS` of it"},
		&cli.StringSliceFlag{Name: "sysctl", Usage: of + "set `net.KEY=VALUE` in the pod"},
	}
}

func explainFlag() cli.Flag {
	return &cli.BoolFlag{Name: "explain", Usage: "say what is done and why, while doing it"}
}

func dryRunFlag(forms string) cli.Flag {
	return &cli.GenericFlag{Name: "dry-run", Value: new(dryRun), Usage: "only show the plan: as `" + forms}
}

// netNames is the value of --net: of several, all.
type netNames string

func (n *netNames) String() string { return string(*n) }

func (n *netNames) Set(value string) error {
	if *n != "" {
		value = "," + value
	}
	*n += netNames(value)
	return nil
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

func create(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("podsh create --name NAME; podsh run IMAGE runs a container, podsh join POD -- CMD a command in a pod", "create takes no argument, but got %q", c.Args().First())
	}
	spec, err := createSpec(c)
	if err == nil && isTar(spec.Rootfs.Dir) {
		err = unpackRoot(spec)
	}
	if err != nil {
		return err
	}
	store, err := sandbox.OpenStore()
	if err != nil {
		return err
	}
	show := dryRunOf(c)
	proposal, err := sandbox.Propose(spec, store, sandbox.Options{Detailed: c.Bool("explain") || show != "", DryRun: show != ""})
	if err != nil {
		return err
	}
	defer proposal.Close()
	switch show {
	case "text":
		return proposal.Plan.Explain(os.Stdout)
	case "json":
		return writeJSON(os.Stdout, proposal.Plan.Lines())
	case "sh":
		return proposal.Script(os.Stdout)
	}
	if c.Bool("explain") {
		if err := proposal.Plan.Explain(os.Stderr); err != nil {
			return err
		}
	}
	pod, warnings, err := proposal.Create()
	if err != nil {
		return err
	}
	for _, w := range warnings {
		warn(w)
	}
	if _, err := fmt.Println(pod.ID); err != nil {
		return fmt.Errorf("pod %s was made, but its id could not be printed: %w", pod.ID, err)
	}
	return sayPorts(os.Stderr, pod)
}

// unpackRoot makes a tar the root of a pod: unpacked once, as the layer of an image.
func unpackRoot(spec *sandbox.Spec) error {
	if spec.MapsIDs() || spec.Rootfs.Mode != "overlay" {
		return usagef("leave them out, or unpack it yourself and name the folder", "a tar as --rootfs is unpacked for the usual ids, and its files are not to be changed: no :ro, :rw, --keep-id, --uidmap, --gidmap or --userns")
	}
	images, img, err := importTar(spec.Rootfs.Dir)
	if err != nil {
		return err
	}
	p := newProgress(false)
	layers, err := sandbox.UsualLayers(images, img, p.ignore)
	if err == nil {
		spec.Rootfs = rootfs.Layers(layers)
	}
	return err
}

// sayPorts tells which numbers the ports got that were to be any.
func sayPorts(w io.Writer, pod *sandbox.Pod) error {
	asked := pod.Spec.Net.Ports
	if !slices.ContainsFunc(asked, func(p network.Port) bool { return p.HostPort == 0 }) {
		return nil
	}
	state, err := pod.Net()
	if err != nil {
		return err
	}
	for i, port := range state.Ports { // in the order in which they were asked for
		if i < len(asked) && asked[i].HostPort == 0 {
			fmt.Fprintf(w, "podsh: published %s\n", port)
		}
	}
	return nil
}

// createSpec turns flags into data.
func createSpec(c *cli.Context) (*sandbox.Spec, error) {
	spec := &sandbox.Spec{
		Name: c.String("name"), Hostname: c.String("hostname"), ReadOnly: c.Bool("read-only"),
		Env: c.StringSlice("env"), CapAdd: c.StringSlice("cap-add"), CapDrop: c.StringSlice("cap-drop"),
		Unmask: c.StringSlice("unmask"), KeepID: c.Bool("keep-id"), Namespaces: map[string]sandbox.Choice{},
	}
	var err error
	if spec.Rootfs, err = rootfs.ParseSource(c.String("rootfs")); err != nil {
		return nil, usagef("--rootfs host, or DIR[:overlay|:ro|:rw]", "%v", err)
	}
	for _, text := range c.StringSlice("volume") {
		v, err := rootfs.ParseVolume(text)
		if err != nil {
			return nil, usagef("--volume /of/the/host:/in/the/pod[:ro]", "%v", err)
		}
		spec.Volumes = append(spec.Volumes, v)
	}
	if spec.Tmpfs, err = tmpfsSpec(c); err != nil {
		return nil, err
	}
	if spec.Labels, err = labels(c); err != nil {
		return nil, err
	}
	return spec, errors.Join(idMaps(c, spec), choices(c, spec), netSpec(c, &spec.Net))
}

// tmpfsSpec reads --tmpfs DST[:OPTIONS].
func tmpfsSpec(c *cli.Context) ([]rootfs.Tmpfs, error) {
	var mounts []rootfs.Tmpfs
	for _, text := range c.StringSlice("tmpfs") {
		t, err := rootfs.ParseTmpfs(text)
		if err != nil {
			return nil, usagef("--tmpfs /in/the/pod[:size=64m,nr_inodes=1k,mode=755,noexec]", "%v", err)
		}
		mounts = append(mounts, t)
	}
	return mounts, nil
}

// labels reads --label KEY=VALUE.
func labels(c *cli.Context) (map[string]string, error) {
	var labels map[string]string
	for _, text := range c.StringSlice("label") {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, usagef("--label KEY=VALUE", "malformed label %q", text)
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[key] = value
	}
	return labels, nil
}

// hostAccess is the value of --host-access[=PORT,…].
type hostAccess struct {
	given bool
	ports []uint16
}

func (h *hostAccess) String() string { return "" }

// IsBoolFlag lets it stand without a value: package flag then sets "true".
func (h *hostAccess) IsBoolFlag() bool { return true }

func (h *hostAccess) Set(value string) (err error) {
	h.given = true
	if value != "true" {
		h.ports, err = sandbox.ParseHostAccess(value)
	}
	return err
}

// netSpec reads what is asked of the pod's network, but for where it comes from.
func netSpec(c *cli.Context, spec *sandbox.Net) error {
	access := c.Generic("host-access").(*hostAccess)
	spec.HostAccess, spec.HostPorts = access.given, access.ports
	spec.Search, spec.Options = c.StringSlice("dns-search"), c.StringSlice("dns-option")
	var err error
	if spec.HostsFile, err = hostsFile(c); err != nil {
		return err
	}
	for _, text := range c.StringSlice("publish") {
		ports, err := network.ParsePorts(text)
		if err != nil {
			return usagef("--publish "+network.PortForm+", such as 8080:80, 127.0.0.1:5353:53/udp, or 0:80 for any that is free", "--publish %v", err)
		}
		spec.Ports = append(spec.Ports, ports...)
	}
	for _, text := range c.StringSlice("dns") {
		server, err := netip.ParseAddr(text)
		if err != nil {
			return usagef("--dns ADDRESS, such as 192.0.2.53", "--dns %q is no address", text)
		}
		spec.DNS = append(spec.DNS, server)
	}
	for _, text := range c.StringSlice("add-host") {
		host, err := sandbox.ParseHost(text)
		if err != nil {
			return err
		}
		spec.Hosts = append(spec.Hosts, host)
	}
	for _, text := range c.StringSlice("sysctl") {
		setting, err := sandbox.ParseSysctl(text)
		if err != nil {
			return err
		}
		spec.Sysctls = append(spec.Sysctls, setting)
	}
	return nil
}

// hostsFile reads --hosts-file host|none|FILE.
func hostsFile(c *cli.Context) (string, error) {
	switch file := c.String("hosts-file"); {
	case !c.IsSet("hosts-file"), file == "none":
		return "", nil
	case file == sandbox.HostsOfHost:
		return file, nil
	default:
		return filepath.Abs(file)
	}
}

func idMaps(c *cli.Context, spec *sandbox.Spec) error {
	for option, ids := range map[string]*[]sandbox.IDMap{"uidmap": &spec.UIDMap, "gidmap": &spec.GIDMap} {
		for _, text := range c.StringSlice(option) {
			m, err := sandbox.ParseIDMap(option, text)
			if err != nil {
				return err
			}
			*ids = append(*ids, m)
		}
	}
	return nil
}

func choices(c *cli.Context, spec *sandbox.Spec) error {
	for _, ns := range sandbox.Namespaces {
		if !c.IsSet(ns.Option) {
			continue
		}
		text := c.String(ns.Option)
		if ns.Name == "net" {
			choice, asked, err := sandbox.ParseNet(text)
			if err != nil {
				return err
			}
			spec.Namespaces[ns.Name], spec.Net = choice, asked
			continue
		}
		choice, err := sandbox.ParseChoice(ns.Option, text)
		if ns.Name == "time" && err != nil {
			choice = sandbox.Choice{Kind: "new"}
			spec.Clocks, err = sandbox.ParseClocks(text)
		}
		if err != nil {
			return err
		}
		spec.Namespaces[ns.Name] = choice
	}
	return nil
}
