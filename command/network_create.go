package command

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
	"github.com/podsh/podsh/sandbox/wire"
)

func networkCreateCommand() *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "make a network and print its name",
		ArgsUsage: "NAME",
		Description: `Writes a network down; it comes into being with its first pod. Where nothing is
said it has a subnet of IPv4 that nobody else has, and a way out.

Examples:
  podsh network create front
  podsh network create back --internal --subnet 10.90.0.0/24
  podsh network create both --ipv6
  podsh network create six --subnet fd00:1234::/64    only IPv6
  podsh network create lan --conflist /etc/cni/net.d/10-lan.conflist`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "subnet", Usage: "its addresses, `CIDR`: one subnet of IPv4, of IPv6, or of both"},
			&cli.BoolFlag{Name: "ipv4", Value: true, Usage: "have a subnet of IPv4; --ipv4=false --ipv6: only one of IPv6"},
			&cli.BoolFlag{Name: "ipv6", Usage: "have a subnet of IPv6 as well"},
			&cli.BoolFlag{Name: "internal", Usage: "have no way out"},
			&cli.StringFlag{Name: "conflist", Usage: "be what a CNI configuration says, in `FILE`"},
		},
		Action: networkCreate,
	}
}

func networkCreate(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("podsh network create front", "network create takes one name, not %d", c.NArg())
	}
	spec := &spec.NetworkSpec{Name: c.Args().First(), IPv6: c.Bool("ipv6"), NoIPv4: !c.Bool("ipv4"), Internal: c.Bool("internal")}
	for _, text := range c.StringSlice("subnet") {
		subnet, err := netip.ParsePrefix(text)
		if err != nil {
			return usagef("--subnet CIDR, such as 10.90.0.0/24 or fd00:1234::/64", "--subnet %q is no subnet", text)
		}
		spec.Subnets = append(spec.Subnets, subnet)
	}
	file := c.String("conflist")
	if c.IsSet("conflist") {
		var err error
		if spec.Conflist, err = readConflist(file); err != nil {
			return usagef("--conflist FILE, such as /etc/cni/net.d/10-lan.conflist", "--conflist: %v", err)
		}
	}
	store, err := store.OpenStore()
	if err != nil {
		return err
	}
	n, err := wire.CreateNetwork(store, spec)
	switch {
	case err == nil:
		_, err = fmt.Println(n.Name)
	case file != "" && !errors.Is(err, fault.ErrInvalid) && !errors.Is(err, fault.ErrNameTaken):
		err = fmt.Errorf("--conflist %s: %w", file, err)
	}
	return err
}

// readConflist reads a file that a person has written: one that is larger was not.
func readConflist(name string) ([]byte, error) {
	const most = 1 << 20
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && len(text) > most {
		err = fmt.Errorf("%s: more than 1 MiB", name)
	}
	return text, err
}
