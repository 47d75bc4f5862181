package command

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox/spec"
)

// namespaceFlags say where the namespaces of a pod come from.
func namespaceFlags() []cli.Flag {
	var flags []cli.Flag
	for _, ns := range spec.Namespaces {
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
	return flags
}

// choices reads them.
func choices(c *cli.Context, wanted *spec.Spec) error {
	for _, ns := range spec.Namespaces {
		if !c.IsSet(ns.Option) {
			continue
		}
		text := c.String(ns.Option)
		if ns.Name == "net" {
			choice, asked, err := spec.ParseNet(text)
			if err != nil {
				return err
			}
			wanted.Namespaces[ns.Name], wanted.Net = choice, asked
			continue
		}
		choice, err := spec.ParseChoice(ns.Option, text)
		if ns.Name == "time" && err != nil {
			choice = spec.Choice{Kind: "new"}
			wanted.Clocks, err = spec.ParseClocks(text)
		}
		if err != nil {
			return err
		}
		wanted.Namespaces[ns.Name] = choice
	}
	return nil
}

// privateFlags say which namespaces a container has for itself.
func privateFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "pid", Value: "shared", Usage: "whether its process ids are the pod's: shared or `private`"},
		&cli.StringFlag{Name: "ipc", Value: "shared", Usage: "and its System V IPC, message queues and shared memory: shared or `private`"},
		&cli.StringFlag{Name: "uts", Value: "shared", Usage: "and its host name: shared or `private`"},
		&cli.GenericFlag{Name: "net", Value: new(netNames), Usage: "and its network: shared or private; of a new pod: a `NETWORK` as podsh create takes it"},
	}
}

// privateSpec reads them.
func privateSpec(c *cli.Context, spec *spec.ContainerSpec) error {
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
