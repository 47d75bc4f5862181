package stack

import (
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

// reason is why a datagram did not get anywhere: type and code of the ICMP message, RFC 792 and RFC 1812
// 5.2.7.1, RFC 4443 3.1.
type reason struct{ v4, v6 [2]byte }

var (
	nobody     = reason{v4: [2]byte{3, 3}, v6: [2]byte{1, 4}}  // port unreachable
	prohibited = reason{v4: [2]byte{3, 13}, v6: [2]byte{1, 1}} // administratively prohibited
)

// unreachable tells the pod that its datagram, which began with head, did not get anywhere. It is shorter than
// nearly all that can provoke it.
func (s *Stack) unreachable(flow flow, head [8]byte, why reason) {
	src, dst := flow.src.Addr(), flow.dst.Addr()
	protocol := protocolOf(src)
	route, err := s.netns.FindRoute(nic, toStack(dst), toStack(src), protocol, false)
	if err != nil {
		return
	}
	defer route.Release()
	transport := header.UDPProtocolNumber
	if protocol == header.IPv4ProtocolNumber {
		if flow.ping {
			transport = header.ICMPv4ProtocolNumber
		}
		message := make([]byte, 8+header.IPv4MinimumSize, 8+header.IPv4MinimumSize+len(head))
		copy(message, why.v4[:])
		ip := header.IPv4(message[8:])
		ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip) + len(head)), TTL: 64, Protocol: uint8(transport), SrcAddr: toStack(src), DstAddr: toStack(dst)})
		ip.SetChecksum(^ip.CalculateChecksum())
		sendICMP(route, append(message, head[:]...))
		return
	}
	if flow.ping {
		transport = header.ICMPv6ProtocolNumber
	}
	message := make([]byte, 8+header.IPv6MinimumSize, 8+header.IPv6MinimumSize+len(head))
	copy(message, why.v6[:])
	header.IPv6(message[8:]).Encode(&header.IPv6Fields{PayloadLength: uint16(len(head)), TransportProtocol: transport, HopLimit: 64, SrcAddr: toStack(src), DstAddr: toStack(dst)})
	sendICMP(route, append(message, head[:]...))
}
