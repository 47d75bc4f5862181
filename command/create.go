package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox"
	"github.com/podsh/podsh/sandbox/disk"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
)

func Create() *cli.Command {
	name := []cli.Flag{
		&cli.StringFlag{Name: "name", Aliases: []string{"n"}, Usage: "call the pod `NAME`"},
		&cli.StringFlag{Name: "hostname", Usage: "its host `NAME` (default: the name, else the id)"},
		labelFlag(),
	}
	root := []cli.Flag{&cli.StringFlag{Name: "rootfs", Value: "host", Usage: "its root: host, a TAR, or `DIR[:overlay|:ro|:rw]`"}}
	env := []cli.Flag{&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "`KEY=VALUE` for every command that joins"}}
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
		Flags: slices.Concat(name, root, mountFlags("`SRC:DST[:ro]`", "show a folder or file of the host"), env, capabilityFlags("let commands have"),
			unmaskFlag(), idFlags(), planFlags("`text`, sh or json"), netFlags(""), namespaceFlags()),
		Action: create,
	}
}

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
	show := dryRunOf(c)
	store, err := openStore(show != "")
	if err != nil {
		return err
	}
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
func unpackRoot(spec *spec.Spec) error {
	if spec.MapsIDs() || spec.Rootfs.Mode != "overlay" {
		return usagef("leave them out, or unpack it yourself and name the folder", "a tar as --rootfs is unpacked for the usual ids, and its files are not to be changed: no :ro, :rw, --keep-id, --uidmap, --gidmap or --userns")
	}
	images, img, err := importTar(spec.Rootfs.Dir)
	if err != nil {
		return err
	}
	p := newProgress(false)
	layers, err := disk.UsualLayers(images, img, p.ignore)
	if err == nil {
		spec.Rootfs = rootfs.Layers(layers)
	}
	return err
}

// sayPorts tells which numbers the ports got that were to be any.
func sayPorts(w io.Writer, pod *pod.Pod) error {
	asked := pod.Spec.Net.Ports
	if !slices.ContainsFunc(asked, func(p network.Port) bool { return p.HostPort == 0 }) {
		return nil
	}
	state, err := store.Net(pod)
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
func createSpec(c *cli.Context) (*spec.Spec, error) {
	spec := &spec.Spec{
		Name: c.String("name"), Hostname: c.String("hostname"), ReadOnly: c.Bool("read-only"),
		Env: c.StringSlice("env"), CapAdd: c.StringSlice("cap-add"), CapDrop: c.StringSlice("cap-drop"),
		Unmask: c.StringSlice("unmask"), KeepID: c.Bool("keep-id"), Namespaces: map[string]spec.Choice{},
	}
	var err error
	if spec.Rootfs, err = rootfs.ParseSource(c.String("rootfs")); err != nil {
		return nil, usagef("--rootfs host, or DIR[:overlay|:ro|:rw]", "%v", err)
	}
	return spec, errors.Join(read(c, &spec.Volumes, volumes), read(c, &spec.Tmpfs, tmpfsSpec), read(c, &spec.Labels, labels),
		idMaps(c, spec), choices(c, spec), netSpec(c, &spec.Net))
}
