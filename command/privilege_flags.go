package command

import "github.com/urfave/cli/v2"

// capabilityFlags are of what commands may do; may is what the flags do with a capability, "have", say.
func capabilityFlags(may string) []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "cap-add", Usage: may + " a `CAPABILITY` more, or ALL"},
		&cli.StringSliceFlag{Name: "cap-drop", Usage: may + " a `CAPABILITY` less, or ALL"},
	}
}

func unmaskFlag() []cli.Flag {
	return []cli.Flag{&cli.StringSliceFlag{Name: "unmask", Usage: "do not hide `PATH`, or all"}}
}
