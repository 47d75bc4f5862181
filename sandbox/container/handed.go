package container

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/wire"
)

// OpenSockets opens sockets on the host, ready for a program: all, or none.
func OpenSockets(asked []spec.Socket) ([]*os.File, error) {
	var files []*os.File
	for _, s := range asked {
		l := &wire.Listening{Port: s.NetworkPort(), Both: !s.IP.IsValid()}
		if err := l.OpenOne(); err != nil {
			control.Close(files)
			return nil, err
		}
		files = append(files, l.Sockets...)
	}
	if err := MakeReady(files, asked); err != nil {
		control.Close(files)
		return nil, err
	}
	return files, nil
}

// MakeReady makes sockets what a program expects, whatever the one before it has done to them: they wait, and they listen.
func MakeReady(files []*os.File, asked []spec.Socket) error {
	for i, file := range files {
		if err := unix.SetNonblock(int(file.Fd()), false); err != nil {
			return fmt.Errorf("--listen: fcntl: %w", err)
		}
		if asked[i].Protocol != "tcp" {
			continue
		}
		if err := unix.Listen(int(file.Fd()), unix.SOMAXCONN); err != nil { // shutdown(2) ends that
			return wire.CannotListen(asked[i].NetworkPort(), err)
		}
	}
	return nil
}
