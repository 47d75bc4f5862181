package plan

import (
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
)

func (b *Builder) Netlink(requests ...[]byte) {
	socket := b.Call(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	for _, request := range requests {
		place := b.Calls
		b.Call(unix.SYS_SENDTO, socket, request, len(request), 0, 0, 0)
		for _, call := range nsenter.Answer(socket, place) {
			b.Call(call.Nr, call.Args...)
		}
	}
	b.Call(unix.SYS_CLOSE, socket)
}
