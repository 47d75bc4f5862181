package command

import (
	"errors"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox"
)

// containerSpec turns flags into data.
func containerSpec(c *cli.Context) (*sandbox.ContainerSpec, error) {
	args := c.Args().Slice()
	spec := &sandbox.ContainerSpec{
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
	if c.IsSet("stop-timeout") {
		grace := seconds(c.Int("stop-timeout"))
		spec.StopAfter = &grace
	}
	var err error
	spec.Env, err = envSpec(c)
	err = errors.Join(lifeSpec(c, spec), volumeSpec(c, spec), err, privateSpec(c, spec))
	if err == nil {
		spec.Listen, err = listenSpec(c)
	}
	if c.String("pod") == "" && !slices.Contains(spec.Private, "uts") {
		spec.Hostname = "" // it is the new pod's
	}
	return spec, err
}

func lifeSpec(c *cli.Context, spec *sandbox.ContainerSpec) (err error) {
	if spec.Restart, err = sandbox.ParseRestart(c.String("restart")); err != nil {
		return err
	}
	if text := c.String("stop-signal"); text != "" {
		sig, err := sandbox.ParseSignal(text)
		if err != nil {
			return err
		}
		spec.StopSignal = int(sig)
	}
	for _, text := range c.StringSlice("ulimit") {
		u, err := sandbox.ParseUlimit(text)
		if err != nil {
			return err
		}
		spec.Ulimits = append(spec.Ulimits, u)
	}
	if spec.Tmpfs, err = tmpfsSpec(c); err != nil {
		return err
	}
	spec.Labels, err = labels(c)
	return err
}

// volumeSpec tells volumes of the pod from folders of the host: those have a slash, or a dot before it.
func volumeSpec(c *cli.Context, spec *sandbox.ContainerSpec) error {
	for _, text := range c.StringSlice("volume") {
		v, err := rootfs.ParseVolume(text)
		if err != nil {
			return usagef("--volume /of/the/host:/in/the/container[:ro], or NAME:/in/the/container", "%v", err)
		}
		name, _, _ := strings.Cut(text, ":")
		if strings.Contains(name, "/") || name == "." || name == ".." {
			spec.Volumes = append(spec.Volumes, v)
			continue
		}
		spec.PodVolumes = append(spec.PodVolumes, sandbox.PodVolume{Name: name, Destination: v.Destination, ReadOnly: v.ReadOnly})
	}
	return nil
}

// privateSpec reads which namespaces the container has for itself.
func privateSpec(c *cli.Context, spec *sandbox.ContainerSpec) error {
	for _, name := range []string{"pid", "ipc", "uts", "net"} {
		switch value := c.String(name); {
		case value == "private":
			spec.Private = append(spec.Private, name)
		case value == "shared" || value == "":
		case name != "net" || c.IsSet("pod"):
			hint := "--" + name + " shared, or private"
			switch kind, _, _ := strings.Cut(value, ":"); kind { // docker's and podman's
			case "container":
				hint = "--pod OTHER: the containers of a pod share its namespaces"
			case "host":
				hint = "podsh create --" + name + " host --name POD, and podsh run --pod POD"
			}
			return usagef(hint, "--%s %q is neither shared nor private", name, value)
		}
	}
	return nil
}

// podSpec describes a pod that is there for one container.
func podSpec(c *cli.Context, spec *sandbox.ContainerSpec) (*sandbox.Spec, error) {
	pod := &sandbox.Spec{Name: spec.Name, Hostname: c.String("hostname"), Rootfs: rootfs.Source{Kind: "host"}, Namespaces: map[string]sandbox.Choice{}}
	if slices.Contains(spec.Private, "uts") {
		pod.Hostname = ""
	}
	if text := c.String("net"); text != "" && text != "private" && text != "shared" {
		choice, net, err := sandbox.ParseNet(text)
		if err != nil {
			return nil, err
		}
		pod.Namespaces["net"], pod.Net = choice, net
	}
	return pod, netSpec(c, &pod.Net)
}
