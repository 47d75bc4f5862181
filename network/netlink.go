package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Requests to the kernel, rtnetlink(7), as bytes: whoever sends them stands in the pod's network namespace.
// They are few and fixed, so they are laid out here; a library for all of rtnetlink would be started with
// every podsh command.

// Loopback is the index of the loopback interface, which is the first in every network namespace.
const Loopback = 1

// message is a request in the making.
type message []byte

var native = binary.NativeEndian

func newMessage(kind uint16, flags uint16, head []byte) message {
	m := make(message, unix.NLMSG_HDRLEN, 128)
	native.PutUint16(m[4:], kind)
	native.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	return append(m, head...)
}

// attribute adds a struct rtattr, padded to four bytes.
func (m message) attribute(kind uint16, value []byte) message {
	m = native.AppendUint16(m, uint16(unix.SizeofRtAttr+len(value)))
	m = native.AppendUint16(m, kind)
	m = append(m, value...)
	return append(m, make([]byte, -len(m)&3)...)
}

func (m message) done() []byte {
	native.PutUint32(m, uint32(len(m)))
	return m
}

func word(value uint32) []byte { return native.AppendUint32(nil, value) }

func family(ip netip.Addr) byte {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// AddAddress gives an interface an address: `ip addr add ADDRESS dev INTERFACE nodad`. One that is there already is
// no error.
func AddAddress(index int, address netip.Prefix) []byte {
	return addressRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, address)
}

// DeleteAddress takes that back. It fails with EADDRNOTAVAIL if it isn't there.
func DeleteAddress(index int, address netip.Prefix) []byte {
	return addressRequest(unix.RTM_DELADDR, 0, index, address)
}

func addressRequest(kind, flags uint16, index int, address netip.Prefix) []byte {
	ip := address.Addr()
	head := append([]byte{family(ip), byte(address.Bits()), unix.IFA_F_PERMANENT | unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE}, word(uint32(index))...)
	return newMessage(kind, flags, head).
		attribute(unix.IFA_LOCAL, ip.AsSlice()).attribute(unix.IFA_ADDRESS, ip.AsSlice()).done()
}

// SetLink brings an interface up and gives it a size of packets: `ip link set INTERFACE up mtu MTU`.
func SetLink(index, mtu int) []byte {
	head := append([]byte{unix.AF_UNSPEC, 0, 0, 0}, word(uint32(index))...)
	head = append(head, word(unix.IFF_UP)...)
	return newMessage(unix.RTM_NEWLINK, 0, append(head, word(unix.IFF_UP)...)).attribute(unix.IFLA_MTU, word(uint32(mtu))).done()
}

// AddDefaultRoute sends what has no other route by a gateway: `ip route replace default via GATEWAY`. index is the
// interface that it is reached through; 0 is the one that has its subnet.
func AddDefaultRoute(index int, gateway netip.Addr) []byte {
	m := route(gateway, unix.RTN_UNICAST, unix.RT_SCOPE_UNIVERSE, unix.RT_TABLE_MAIN).attribute(unix.RTA_GATEWAY, gateway.AsSlice())
	if index != 0 {
		m = m.attribute(unix.RTA_OIF, word(uint32(index)))
	}
	return m.done()
}

// ReplyMark marks what comes in through a published port, and what answers it; ReplyTable is the routing
// table for the answers, and the priority of the rules that lead there. Any number would do that nobody else
// uses, and that comes before the main table's 32766.
const (
	ReplyMark  = 0x7064
	ReplyTable = 28772
)

// AddReplyRoute keeps answers in the pod, whatever address they are for: `ip route replace local default dev
// lo table 28772 src ADDRESS`. There they find the socket that has the client's address, IP_TRANSPARENT in
// ip(7). ADDRESS, the pod's own, is what a server answers from that has not bound one.
func AddReplyRoute(address netip.Addr) []byte {
	return route(address, unix.RTN_LOCAL, unix.RT_SCOPE_HOST, ReplyTable).
		attribute(unix.RTA_OIF, word(Loopback)).attribute(unix.RTA_PREFSRC, address.AsSlice()).done()
}

func route(of netip.Addr, kind, scope byte, table int) message {
	inHead := byte(unix.RT_TABLE_COMPAT)
	if table < 256 {
		inHead = byte(table)
	}
	head := []byte{family(of), 0, 0, 0, inHead, unix.RTPROT_STATIC, scope, kind, 0, 0, 0, 0}
	return newMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, head).attribute(unix.RTA_TABLE, word(uint32(table)))
}

// AddReplyRule makes marked answers take the ReplyTable: `ip rule add pref 28772 fwmark 0x7064 lookup 28772`. It
// fails with EEXIST if it is there.
func AddReplyRule(of netip.Addr) []byte {
	return replyRule(unix.RTM_NEWRULE, of).attribute(unix.FRA_FWMARK, word(ReplyMark)).done()
}

// AddPortRule does so for what a UDP port sends: no mark goes from a datagram to the one that answers it.
// `ip rule add pref 28772 ipproto udp sport PORT lookup 28772`, Linux 4.17.
func AddPortRule(of netip.Addr, port uint16) []byte { return portRule(unix.RTM_NEWRULE, of, port) }

// AddPeerRule lets datagrams for a subnet take the usual way all the same: `ip rule add pref 28771 ipproto udp to
// SUBNET lookup main`.
func AddPeerRule(subnet netip.Prefix) []byte {
	const toTable = 1 // FR_ACT_TO_TBL
	head := []byte{family(subnet.Addr()), byte(subnet.Bits()), 0, 0, unix.RT_TABLE_MAIN, 0, 0, toTable, 0, 0, 0, 0}
	return newMessage(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, head).
		attribute(unix.FRA_TABLE, word(unix.RT_TABLE_MAIN)).attribute(unix.FRA_PRIORITY, word(ReplyTable-1)).
		attribute(unix.FRA_DST, subnet.Addr().AsSlice()).attribute(unix.FRA_IP_PROTO, []byte{unix.IPPROTO_UDP}).done()
}

// DeletePortRule takes what AddPortRule did back.
func DeletePortRule(of netip.Addr, port uint16) []byte { return portRule(unix.RTM_DELRULE, of, port) }

func portRule(kind uint16, of netip.Addr, port uint16) []byte {
	from := native.AppendUint16(native.AppendUint16(nil, port), port)
	return replyRule(kind, of).attribute(unix.FRA_IP_PROTO, []byte{unix.IPPROTO_UDP}).attribute(unix.FRA_SPORT_RANGE, from).done()
}

func replyRule(kind uint16, of netip.Addr) message {
	const toTable = 1 // FR_ACT_TO_TBL
	head := []byte{family(of), 0, 0, 0, unix.RT_TABLE_COMPAT, 0, 0, toTable, 0, 0, 0, 0}
	flags := uint16(0)
	if kind == unix.RTM_NEWRULE {
		flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	return newMessage(kind, flags, head).attribute(unix.FRA_TABLE, word(ReplyTable)).attribute(unix.FRA_PRIORITY, word(ReplyTable))
}

// Ask sends a request to the kernel where the caller stands, and returns what it answers.
func Ask(request []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send a netlink request: %w", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return fmt.Errorf("receive a netlink answer: %w", err)
	}
	if n < unix.NLMSG_HDRLEN+4 || native.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return errors.New("an unexpected netlink answer")
	}
	if errno := int32(native.Uint32(answer[unix.NLMSG_HDRLEN:])); errno != 0 {
		return syscall.Errno(-errno)
	}
	return nil
}
