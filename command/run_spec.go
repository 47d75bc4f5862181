package command

import (
	"errors"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/spec"
)

// containerSpec turns flags into data.
func containerSpec(c *cli.Context) (*spec.ContainerSpec, error) {
	args := c.Args().Slice()
	spec := &spec.ContainerSpec{
		Name: c.String("name"), User: c.String("user"), Workdir: c.String("workdir"),
		ReadOnly: c.Bool("read-only"), CapAdd: c.StringSlice("cap-add"), CapDrop: c.StringSlice("cap-drop"), Unmask: c.StringSlice("unmask"),
		TTY: c.Bool("tty"), Stdin: c.Bool("interactive"), Detached: c.Bool("detach"), Remove: c.Bool("rm"), Hostname: c.String("hostname"),
	}
	switch {
	case c.IsSet("rootfs"):
		var err error
		if spec.Rootfs, err = rootfs.ParseSource(c.String("rootfs")); err != nil || spec.Rootfs.Kind == "host" {
			return nil, usagef("--rootfs DIR[:overlay|:ro|:rw], or a TAR", "--rootfs %q is no root for a container", c.String("rootfs"))
		}
		spec.Command = args
	case len(args) == 0:
		return nil, usagef("podsh run [flags] IMAGE [CMD...]; `podsh image ls` lists those that are here", "run needs an image")
	default:
		spec.Image, spec.Command = args[0], args[1:]
	}
	if c.IsSet("entrypoint") {
		program := c.String("entrypoint")
		spec.Entrypoint = &program
	}
	err := errors.Join(lifeSpec(c, spec), volumeSpec(c, spec), read(c, &spec.Tmpfs, tmpfsSpec), read(c, &spec.Labels, labels),
		read(c, &spec.Env, envSpec), privateSpec(c, spec), read(c, &spec.Listen, listenSpec))
	if c.String("pod") == "" && !slices.Contains(spec.Private, "uts") {
		spec.Hostname = "" // it is the new pod's
	}
	return spec, err
}

// podSpec describes a pod that is there for one container.
func podSpec(c *cli.Context, asked *spec.ContainerSpec) (*spec.Spec, error) {
	pod := &spec.Spec{Name: asked.Name, Hostname: c.String("hostname"), Rootfs: rootfs.Source{Kind: "host"}, Namespaces: map[string]spec.Choice{}}
	if slices.Contains(asked.Private, "uts") {
		pod.Hostname = ""
	}
	if text := c.String("net"); text != "" && text != "private" && text != "shared" {
		choice, net, err := spec.ParseNet(text)
		if err != nil {
			return nil, err
		}
		pod.Namespaces["net"], pod.Net = choice, net
	}
	return pod, netSpec(c, &pod.Net)
}
