package stack

import (
	"errors"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Urgent data, tcp(7), is one byte of a stream, to which segments with the URG flag point: RFC 6093. gVisor has no notion
// of it: what comes is data like any other, and what it sends is never flagged. So the link, which all segments pass, reads
// and sets the flags, and those who copy the stream say which byte it is on the other side.

// urgent is where the urgent byte of one direction of a stream is. There is one at a time, as kernels have it, whatever a
// pod sends: the next takes its place, and what has not been sent by then is data like any other. Sequence numbers wrap.
// The link and who copies use it at the same time.
type urgent struct {
	next atomic.Uint32 // the sequence number of what is copied next
	mark atomic.Uint64 // that of the urgent byte, and known
}

const (
	known = 1 << 32
	// reach is more than what fits the buffers between a segment's sender and the copier, and how far it can point ahead.
	reach = 2 * largeBuffer
)

// note takes in where a segment says that the urgent byte is. A segment that is sent anew may tell of one that has been
// copied. What lies further ahead than can be is not what the pod's kernel said: other pods may send in its name.
func (u *urgent) note(mark uint32) {
	if mark-u.next.Load() >= reach {
		return
	}
	if old := u.mark.Load(); old != 0 && int32(mark-uint32(old)) < 0 {
		return
	}
	u.mark.Store(known | uint64(mark))
}

// cut returns as much of data, which is what is copied next, as can be sent at once, and whether it is the urgent byte.
func (u *urgent) cut(data []byte) (part []byte, urgent bool) {
	mark := u.mark.Load()
	switch ahead := uint32(mark) - u.next.Load(); {
	case mark == 0 || ahead >= uint32(len(data)): // there is none, it is further ahead, or has been copied
		return data, false
	case ahead == 0:
		return data[:1], true
	default:
		return data[:ahead], false
	}
}

// come says that after n bytes more the urgent one comes.
func (u *urgent) come(n int) { u.mark.Store(known | uint64(u.next.Load()+uint32(n))) }

// copied says that n bytes more have been. An urgent byte so far behind that no buffer can hold it any more has been
// acknowledged, too, and is forgotten, lest another be taken for it when sequence numbers have gone round.
func (u *urgent) copied(n int) {
	next := u.next.Add(uint32(n))
	if mark := u.mark.Load(); mark != 0 && int32(next-uint32(mark)) > reach {
		u.mark.CompareAndSwap(mark, 0)
	}
}

// point makes a segment point to the urgent byte, if that is in it or not far behind. Linux takes the pointer for one to
// the byte after: tcp_check_urg of net/ipv4/tcp_input.c. The flag is no matter to a checksum that the pod's kernel makes.
func (u *urgent) point(segment header.TCP) {
	mark := u.mark.Load()
	if ahead := uint32(mark) - segment.SequenceNumber(); mark != 0 && ahead < 65535 {
		segment.SetFlags(uint8(segment.Flags() | header.TCPFlagUrg))
		segment.SetUrgentPointer(uint16(ahead + 1))
	}
}

// flagged takes in that a segment of the pod's has the URG flag. To point to itself is the same as to the byte after.
func (s *Stack) flagged(id stack.TransportEndpointID, segment header.TCP) {
	if a := s.attempt(id); a != nil {
		a.up.note(segment.SequenceNumber() + uint32(max(segment.UrgentPointer(), 1)) - 1)
	}
}

// begun takes in where the sequence numbers towards the pod begin.
func (s *Stack) begun(id stack.TransportEndpointID, syn header.TCP) {
	if a := s.attempt(id); a != nil {
		a.down.next.Store(syn.SequenceNumber() + 1)
	}
}

// own makes the endpoint's segments known to the link as those of the attempt. Under this lock they are sent.
func (a *attempt) own(pod *tcp.Endpoint) {
	pod.LockUser()
	pod.SetOwner(a)
	pod.UnlockUser()
}

// KUID and KGID implement tcpip.PacketOwner; nobody asks.
func (a *attempt) KUID() uint32 { return 0 }
func (a *attempt) KGID() uint32 { return 0 }

// inspect looks for the URG flag in a packet that classify has let through. A TCP header that is further in than Linux
// puts it, behind extensions of IPv6 or in a later fragment, is not found.
func (l *link) inspect(packet []byte) {
	start := header.IPv6MinimumSize
	if packet[0]>>4 == 4 {
		start = int(header.IPv4(packet).HeaderLength())
	}
	if len(packet) < start+header.TCPMinimumSize || header.TCP(packet[start:]).Flags()&header.TCPFlagUrg == 0 {
		return
	}
	var ip header.Network = header.IPv6(packet)
	if v4 := header.IPv4(packet); packet[0]>>4 == 4 {
		if v4.FragmentOffset() != 0 {
			return
		}
		ip = v4
	}
	if segment := header.TCP(packet[start:]); ip.TransportProtocol() == header.TCPProtocolNumber {
		l.flagged(stack.TransportEndpointID{
			LocalAddress: ip.DestinationAddress(), LocalPort: segment.DestinationPort(),
			RemoteAddress: ip.SourceAddress(), RemotePort: segment.SourcePort(),
		}, segment)
	}
}

// flag sets the URG flag of a segment that goes to the pod, if it is to have it.
func (l *link) flag(packet *stack.PacketBuffer) {
	segment := header.TCP(packet.TransportHeader().Slice())
	if len(segment) < header.TCPMinimumSize { // a fragment
		return
	}
	if a, ok := packet.Owner.(*attempt); ok {
		a.down.point(segment)
	} else if ip := packet.Network(); segment.Flags()&header.TCPFlagSyn != 0 {
		l.begun(stack.TransportEndpointID{
			LocalAddress: ip.SourceAddress(), LocalPort: segment.SourcePort(),
			RemoteAddress: ip.DestinationAddress(), RemotePort: segment.DestinationPort(),
		}, segment)
	}
}

// sendOn writes to a socket of the host's.
func sendOn(fd int, data []byte, urgent bool) (int, error) {
	if !urgent {
		return unix.Write(fd, data)
	}
	if err := unix.Sendto(fd, data, unix.MSG_OOB|unix.MSG_NOSIGNAL, nil); err != nil {
		return 0, err
	}
	return len(data), nil
}

// inline lets urgent data keep its place in what is read from a socket of the host's, and be waited for like the rest.
func inline(conn syscall.RawConn) (err error) {
	failed := conn.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1) })
	return errors.Join(failed, err)
}

// atMark says whether urgent data is what is read next: sockatmark(3).
func atMark(fd int) bool {
	at, err := unix.IoctlGetInt(fd, unix.SIOCATMARK)
	return err == nil && at != 0
}
