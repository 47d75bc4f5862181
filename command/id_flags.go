package command

import (
	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox/doctor"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/spec"
)

// idFlags are of who is who in a pod.
func idFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "uidmap", Usage: "map user ids, `IN:OUT:COUNT`"},
		&cli.StringSliceFlag{Name: "gidmap", Usage: "map group ids, `IN:OUT:COUNT` (default: as --uidmap)"},
		&cli.BoolFlag{Name: "keep-id", Usage: "be yourself inside: your ids are the same there"},
	}
}

func idMaps(c *cli.Context, spec *spec.Spec) error {
	for option, mapped := range map[string]*[]ids.Map{"uidmap": &spec.UIDMap, "gidmap": &spec.GIDMap} {
		for _, text := range c.StringSlice(option) {
			m, err := ids.Parse(option, text, doctor.YourMap())
			if err != nil {
				return err
			}
			*mapped = append(*mapped, m)
		}
	}
	return nil
}
