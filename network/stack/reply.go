package stack

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// sendUDP sends a datagram along route, in fragments if it must.
func sendUDP(route *stack.Route, from, to uint16, data []byte) {
	var head [header.UDPMinimumSize]byte
	udp := header.UDP(head[:])
	udp.Encode(&header.UDPFields{SrcPort: from, DstPort: to, Length: uint16(len(head) + len(data))})
	sum := checksum.Combine(route.PseudoHeaderChecksum(header.UDPProtocolNumber, udp.Length()), checksum.Checksum(data, 0))
	// Zero would say that there is no checksum, RFC 768.
	if sum = ^udp.CalculateChecksum(sum); sum == 0 {
		sum = 0xffff
	}
	udp.SetChecksum(sum)
	send(route, header.UDPProtocolNumber, head[:], data)
}

// sendEchoReply sends message, which a ping socket has received, with the identifier that the pod used; the
// kernel had put one of its own. It reports whether that was an echo reply.
func sendEchoReply(route *stack.Route, ident uint16, message []byte) bool {
	reply := byte(header.ICMPv4EchoReply)
	if route.NetProto() == header.IPv6ProtocolNumber {
		reply = byte(header.ICMPv6EchoReply)
	}
	if len(message) < 8 || message[0] != reply {
		return false
	}
	header.ICMPv4(message).SetIdent(ident) // it lies in the same place in ICMPv6
	sendICMP(route, message)
	return true
}

// sendICMP sends message, whose checksum it sets.
func sendICMP(route *stack.Route, message []byte) {
	head, data := message[:8], message[8:]
	if route.NetProto() == header.IPv4ProtocolNumber {
		icmp := header.ICMPv4(head)
		icmp.SetChecksum(0)
		icmp.SetChecksum(^checksum.Checksum(message, 0))
		send(route, header.ICMPv4ProtocolNumber, head, data)
		return
	}
	icmp := header.ICMPv6(head)
	icmp.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
		Header: icmp, Src: route.LocalAddress(), Dst: route.RemoteAddress(),
		PayloadCsum: checksum.Checksum(data, 0), PayloadLen: len(data),
	}))
	send(route, header.ICMPv6ProtocolNumber, head, data)
}

func send(route *stack.Route, protocol tcpip.TransportProtocolNumber, head, data []byte) {
	packet := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(route.MaxHeaderLength()) + len(head),
		Payload:            buffer.MakeWithData(data),
	})
	defer packet.DecRef()
	packet.TransportProtocolNumber = protocol
	copy(packet.TransportHeader().Push(len(head)), head)
	// A packet that can't be sent is lost, as packets are.
	_ = route.WritePacket(stack.NetworkHeaderParams{Protocol: protocol, TTL: 64}, packet)
}

// reason is why something did not get anywhere: type and code of the ICMP message, RFC 792 and RFC 1812 5.2.7.1, RFC
// 4443 3.1. Of IPv4's, Linux tells a connected UDP socket only such as it holds for final (icmp_err_convert in
// net/ipv4/icmp.c); firm is one of these, of which it makes the same error.
type reason struct{ v4, v6, firm [2]byte }

var (
	nobody     = reason{v4: [2]byte{3, 3}, v6: [2]byte{1, 4}}  // port unreachable: ECONNREFUSED
	prohibited = reason{v4: [2]byte{3, 13}, v6: [2]byte{1, 1}} // administratively prohibited: EHOSTUNREACH, in IPv6 EACCES
)

// reasons are what the host's kernel says of a destination, and what makes the pod's say the same.
var reasons = map[error]reason{
	unix.ECONNREFUSED: nobody,
	unix.EHOSTUNREACH: {v4: [2]byte{3, 1}, v6: [2]byte{1, 3}, firm: [2]byte{3, 10}},
	unix.ENETUNREACH:  {v4: [2]byte{3, 0}, v6: [2]byte{1, 0}, firm: [2]byte{3, 9}},
	unix.ENETDOWN:     {v4: [2]byte{3, 0}, v6: [2]byte{1, 0}, firm: [2]byte{3, 9}},
	unix.EHOSTDOWN:    {v4: [2]byte{3, 7}, v6: [2]byte{1, 3}},
	unix.EACCES:       prohibited, // a route that prohibits, ip-route(8)
	unix.EPERM:        prohibited, // a packet filter
	errRefused:        prohibited,
}

// reasonOf finds out what to tell a pod of an error; false: nothing. That is so for those of time, which its kernel
// notices by itself, and of this process, such as too few descriptors, which may pass.
func reasonOf(err error) (reason, bool) {
	for known, why := range reasons {
		if errors.Is(err, known) {
			return why, true
		}
	}
	return reason{}, false
}

// firmly is why so that a UDP socket hears of it, where the host's kernel would have said it to send(2) at once.
func (why reason) firmly(flow flow) reason {
	if flow.protocol == header.UDPProtocolNumber && why.firm != [2]byte{} {
		why.v4 = why.firm
	}
	return why
}

// mostQuoted bounds how much of a datagram is quoted in an ICMP message about it.
const mostQuoted = 128

// quote is what an ICMP message quotes of what a pod sent: of a datagram its header, and how it began.
func quote(flow flow, data []byte) []byte {
	begin := data[:min(len(data), mostQuoted)]
	if flow.ping() { // a message has its header already
		return begin
	}
	head := make([]byte, header.UDPMinimumSize, header.UDPMinimumSize+len(begin))
	header.UDP(head).Encode(&header.UDPFields{SrcPort: flow.src.Port(), DstPort: flow.dst.Port(), Length: uint16(len(head) + len(data))})
	return append(head, begin...)
}

// unreachable tells the pod, as the destination would, that what it sent did not get anywhere.
func (s *Stack) unreachable(flow flow, quoted []byte, why reason) {
	s.unreachableFrom(flow.dst.Addr(), flow, quoted, why)
}

// unreachableFrom tells it as offender does, if that is somebody a pod may know of. What it says is as long as what
// provoked it, and a header.
func (s *Stack) unreachableFrom(offender netip.Addr, flow flow, quoted []byte, why reason) {
	src, dst := flow.src.Addr(), flow.dst.Addr()
	if offender != dst && (offender.Is4() != src.Is4() || excluded(offender) || s.hostsOwn(offender)) {
		offender = dst
	}
	route, err := s.netns.FindRoute(nic, toStack(offender), toStack(src), protocolOf(src), false)
	if err != nil {
		return
	}
	defer route.Release()
	if src.Is4() {
		message := make([]byte, 8+header.IPv4MinimumSize, 8+header.IPv4MinimumSize+len(quoted))
		copy(message, why.v4[:])
		ip := header.IPv4(message[8:])
		ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip) + len(quoted)), TTL: 64, Protocol: uint8(flow.protocol),
			SrcAddr: toStack(src), DstAddr: toStack(dst)})
		ip.SetChecksum(^ip.CalculateChecksum())
		sendICMP(route, append(message, quoted...))
		return
	}
	message := make([]byte, 8+header.IPv6MinimumSize, 8+header.IPv6MinimumSize+len(quoted))
	copy(message, why.v6[:])
	header.IPv6(message[8:]).Encode(&header.IPv6Fields{PayloadLength: uint16(len(quoted)), TransportProtocol: flow.protocol,
		HopLimit: 64, SrcAddr: toStack(src), DstAddr: toStack(dst)})
	sendICMP(route, append(message, quoted...))
}
