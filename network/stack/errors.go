package stack

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// reportErrors tells the pod of the errors that the mapping's datagrams met on their way, ip(7): IP_RECVERR, as those
// who met them said it. It returns how many there were.
func (m *mapping) reportErrors(fd int) (n int) {
	var data [mostQuoted]byte
	var control [512]byte
	for {
		size, controls, _, peer, err := unix.Recvmsg(fd, data[:], control[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return n
		}
		n++
		if why, offender, told := parseError(control[:controls]); told {
			m.report(fromSockaddr(peer), offender, why, data[:size])
		}
	}
}

// report tells the pod of an error that offender found in a datagram to peer.
func (m *mapping) report(peer netip.AddrPort, offender netip.Addr, why reason, data []byte) {
	flow := flow{src: m.origin.src, protocol: m.protocol()}
	if flow.ping() {
		if len(data) < 8 {
			return
		}
		flow.dst = netip.AddrPortFrom(m.origin.ping, 0)
		header.ICMPv4(data).SetIdent(m.origin.src.Port()) // the kernel had put its own; in ICMPv6 it lies in the same place
	} else {
		known := false
		if flow.dst, known = m.shown(peer); !known {
			return
		}
	}
	m.stack.unreachableFrom(offender, flow, quote(flow, data), why)
}

// Where in the control message of an error things are: struct sock_extended_err of linux/errqueue.h, and after it the
// address of who found it.
const (
	errOrigin, errType, errCode = 4, 5, 6
	errOffender                 = 16
	fromICMP, fromICMP6         = 2, 3 // SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6
)

// parseError reads what the kernel says of an error. Only what somebody on the way said is to be told; all else send(2)
// says. That a datagram was too large is the business of the host's kernel, which makes smaller fragments from then on.
func parseError(control []byte) (why reason, offender netip.Addr, told bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return reason{}, netip.Addr{}, false
	}
	for _, message := range messages {
		data := message.Data
		if len(data) < errOffender+16 || binary.NativeEndian.Uint32(data) == uint32(unix.EMSGSIZE) {
			continue
		}
		code := [2]byte{data[errType], data[errCode]}
		switch family := binary.NativeEndian.Uint16(data[errOffender:]); {
		case data[errOrigin] == fromICMP && family == unix.AF_INET:
			return reason{v4: code}, netip.AddrFrom4([4]byte(data[errOffender+4:])), true
		case data[errOrigin] == fromICMP6 && family == unix.AF_INET6 && len(data) >= errOffender+28:
			return reason{v6: code}, netip.AddrFrom16([16]byte(data[errOffender+8:])), true
		}
	}
	return reason{}, netip.Addr{}, false
}
