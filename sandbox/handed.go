package sandbox

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/spec"
)

// openSockets opens sockets on the host, ready for a program: all, or none.
func openSockets(asked []spec.Socket) ([]*os.File, error) {
	var files []*os.File
	for _, s := range asked {
		l := &listening{port: s.NetworkPort(), both: !s.IP.IsValid()}
		if err := l.openOne(); err != nil {
			control.Close(files)
			return nil, err
		}
		files = append(files, l.sockets...)
	}
	if err := makeReady(files, asked); err != nil {
		control.Close(files)
		return nil, err
	}
	return files, nil
}

// openOne opens one socket, for both families where no address is named: as systemd does, for programs that take only one.
func (l *listening) openOne() error {
	if !l.both {
		return l.open(l.port.HostIP, l.port.HostPort)
	}
	err := l.open(netip.IPv6Unspecified(), l.port.HostPort)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) { // no IPv6 here
		return l.open(netip.IPv4Unspecified(), l.port.HostPort)
	}
	return err
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
			return cannotListen(asked[i].NetworkPort(), err)
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
