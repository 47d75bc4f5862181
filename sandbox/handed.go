package sandbox

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/wire"
)

// openSockets opens sockets on the host, ready for a program: all, or none.
func openSockets(asked []spec.Socket) ([]*os.File, error) {
	var files []*os.File
	for _, s := range asked {
		l := &wire.Listening{Port: s.NetworkPort(), Both: !s.IP.IsValid()}
		if err := l.OpenOne(); err != nil {
			control.Close(files)
			return nil, err
		}
		files = append(files, l.Sockets...)
	}
	if err := makeReady(files, asked); err != nil {
		control.Close(files)
		return nil, err
	}
	return files, nil
}

// makeReady makes sockets what a program expects, whatever the one before it has done to them: they wait, and they listen.
func makeReady(files []*os.File, asked []spec.Socket) error {
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

// listen gives a run of the container its sockets. They stay open until it has ended for good: who comes while it starts once
// more waits.
func (v *supervised) listen(stdio *Stdio) (err error) {
	if v.sockets == nil {
		v.sockets, err = openSockets(v.c.Spec.Listen)
	} else {
		err = makeReady(v.sockets, v.c.Spec.Listen)
	}
	stdio.Sockets = v.sockets
	return err
}
