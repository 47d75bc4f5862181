package relay

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// packet is what recvmsg(2) and sendmsg(2) work with. A loop has one.
type packet struct {
	address sockaddr
	header  unix.Msghdr
	vector  unix.Iovec
	control [64]byte
	got     []byte // of control
}

// receive reads one datagram into b, and where from and to into the packet.
func (p *packet) receive(fd int, b []byte) (int, syscall.Errno) {
	p.fill(b)
	p.header.Name, p.header.Namelen = &p.address.raw[0], uint32(len(p.address.raw))
	p.header.Control = &p.control[0]
	p.header.SetControllen(len(p.control))
	n, errno := recvmsg(fd, &p.header)
	p.address.size = p.header.Namelen
	p.got = p.control[:p.header.Controllen]
	return n, errno
}

// send writes one datagram; control says from which of the host's addresses, if from any.
func (p *packet) send(fd int, to *sockaddr, control, b []byte) syscall.Errno {
	p.fill(b)
	p.header.Name, p.header.Namelen = &to.raw[0], to.size
	if len(control) > 0 {
		p.header.Control = &control[0]
		p.header.SetControllen(len(control))
	}
	_, errno := sendmsg(fd, &p.header)
	return errno
}

func (p *packet) fill(b []byte) {
	p.vector, p.header = unix.Iovec{}, unix.Msghdr{Iov: &p.vector}
	p.header.SetIovlen(1)
	if len(b) > 0 {
		p.vector.Base = &b[0]
		p.vector.SetLen(len(b))
	}
}

// info finds the address that the datagram was sent to, and the number of its link: a struct in_pktinfo of
// ip(7) or in6_pktinfo of ipv6(7), the only control message that is asked for.
func (p *packet) info() (local, link []byte) {
	const head = unix.SizeofCmsghdr
	if len(p.got) < head {
		return nil, nil
	}
	level, kind := binary.NativeEndian.Uint32(p.got[head-8:]), binary.NativeEndian.Uint32(p.got[head-4:])
	data := p.got[head:]
	switch {
	case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		return data[4:8], data[:4]
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		return data[:16], data[16:20]
	}
	return nil, nil
}

// local is the address that the datagram was sent to; the zero Addr if that is not known, or many hosts'.
func (p *packet) local() netip.Addr {
	address, _ := p.info()
	local, _ := netip.AddrFromSlice(address)
	if local.IsMulticast() {
		return netip.Addr{}
	}
	return local
}

// source is the control message that sends replies from there.
func (p *packet) source() []byte {
	if !p.local().IsValid() {
		return nil
	}
	source := bytes.Clone(p.got)
	if !p.local().IsLinkLocalUnicast() { // routes choose the link, but for an address that has no other
		_, link := (&packet{got: source}).info()
		clear(link)
	}
	return source
}
