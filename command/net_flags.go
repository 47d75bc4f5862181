package command

import (
	"net/netip"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/spec"
)

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

// netSpec reads what is asked of the pod's network, but for where it comes from.
func netSpec(c *cli.Context, asked *spec.Net) error {
	access := c.Generic("host-access").(*hostAccess)
	asked.HostAccess, asked.HostPorts = access.given, access.ports
	asked.Search, asked.Options = c.StringSlice("dns-search"), c.StringSlice("dns-option")
	var err error
	if asked.HostsFile, err = hostsFile(c); err != nil {
		return err
	}
	for _, text := range c.StringSlice("publish") {
		ports, err := network.ParsePorts(text)
		if err != nil {
			return usagef("--publish "+network.PortForm+", such as 8080:80, 127.0.0.1:5353:53/udp, or 0:80 for any that is free", "--publish %v", err)
		}
		asked.Ports = append(asked.Ports, ports...)
	}
	for _, text := range c.StringSlice("dns") {
		server, err := netip.ParseAddr(text)
		if err != nil {
			return usagef("--dns ADDRESS, such as 192.0.2.53", "--dns %q is no address", text)
		}
		asked.DNS = append(asked.DNS, server)
	}
	for _, text := range c.StringSlice("add-host") {
		host, err := spec.ParseHost(text)
		if err != nil {
			return err
		}
		asked.Hosts = append(asked.Hosts, host)
	}
	for _, text := range c.StringSlice("sysctl") {
		setting, err := spec.ParseSysctl(text)
		if err != nil {
			return err
		}
		asked.Sysctls = append(asked.Sysctls, setting)
	}
	return nil
}

// hostsFile reads --hosts-file host|none|FILE.
func hostsFile(c *cli.Context) (string, error) {
	switch file := c.String("hosts-file"); {
	case !c.IsSet("hosts-file"):
		return "", nil
	case file == spec.HostsOfHost, file == spec.NoHosts:
		return file, nil
	default:
		return filepath.Abs(file)
	}
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
		h.ports, err = spec.ParseHostAccess(value)
	}
	return err
}
