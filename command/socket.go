package command

import (
	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox/spec"
)

// listenFlag names sockets that a command is given.
func listenFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "listen", Usage: "listen on the host's `" + spec.SocketForm + "`, and hand that socket to the command as systemd does"}
}

func listenSpec(c *cli.Context) (sockets []spec.Socket, err error) {
	for _, text := range c.StringSlice("listen") {
		s, err := spec.ParseSocket(text)
		if err != nil {
			return nil, err
		}
		sockets = append(sockets, s)
	}
	return sockets, nil
}
