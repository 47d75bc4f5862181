package stack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/rawfile"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// struct virtio_net_hdr of linux/virtio_net.h precedes each packet:
//
//	flags(1) gso_type(1) hdr_len(2) gso_size(2) csum_start(2) csum_offset(2)
const (
	vnetHeader = 10
	needsCsum  = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	gsoTCPv4   = 1 // VIRTIO_NET_HDR_GSO_TCPV4
	gsoTCPv6   = 4 // VIRTIO_NET_HDR_GSO_TCPV6
)

// link is the stack's interface: packets from and to a tun device, whole TCP segments of up to 64 kB at a time
// in both directions. How they become packets of the wire's size is the pod's kernel's affair.
type link struct {
	mtu        uint32
	dispatcher stack.NetworkDispatcher
	dropped    atomic.Uint64
	done       chan struct{} // closed when read has ended

	flagged func(stack.TransportEndpointID, header.TCP) // a segment from the pod has the URG flag
	begun   func(stack.TransportEndpointID, header.TCP) // a SYN goes to the pod

	// Writers hold mu shared: a closed descriptor's number may be another file's.
	mu   sync.RWMutex
	file *os.File
	fd   int // -1: closed
}

// newLink takes tun over.
func newLink(tun *os.File, mtu uint32) (*link, error) {
	defer tun.Close()
	if mtu < header.IPv6MinimumMTU || mtu > 65535 {
		return nil, fmt.Errorf("MTU %d of the tun device: not between %d and 65535", mtu, header.IPv6MinimumMTU)
	}
	fd, err := unix.FcntlInt(tun.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("dup the tun device: %w", err)
	}
	// Only what is non-blocking when os.NewFile sees it is waited for by epoll rather than by a thread.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set the tun device non-blocking: %w", err)
	}
	return &link{mtu: mtu, file: os.NewFile(uintptr(fd), "tun"), fd: fd, done: make(chan struct{})}, nil
}

// read hands packets to the stack until the device is closed, or gone (EBADFD).
func (l *link) read() {
	defer close(l.done)
	conn, err := l.file.SyscallConn()
	if err != nil {
		return
	}
	view := buffer.NewViewSize(buffer.MaxChunkSize)
	defer func() { view.Release() }()
	for err == nil {
		waited := conn.Read(func(fd uintptr) bool {
			for {
				var n int
				n, err = unix.Read(int(fd), view.AsSlice())
				switch {
				case errors.Is(err, unix.EINTR):
					continue
				case errors.Is(err, unix.EAGAIN):
					err = nil
					return false
				case err != nil || n == 0:
					err = errors.Join(err, os.ErrClosed)
					return true
				}
				view = l.inject(view, n)
			}
		})
		err = errors.Join(err, waited)
	}
}

// inject hands the packet in the first n bytes of view to the stack, and returns the view for the next one. A
// large packet takes view with it; a small one is copied, lest it hold 64 kB in some queue.
func (l *link) inject(view *buffer.View, n int) *buffer.View {
	protocol, ok := classify(view.AsSlice()[:n])
	if !ok {
		l.dropped.Add(1)
		return view
	}
	l.inspect(view.AsSlice()[vnetHeader:n])
	payload := view
	if n < buffer.MaxChunkSize/2 {
		payload = buffer.NewViewWithData(view.AsSlice()[vnetHeader:n])
	} else {
		view = buffer.NewViewSize(buffer.MaxChunkSize)
		payload.CapLength(n)
		payload.TrimFront(vnetHeader)
	}
	packet := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(payload)})
	packet.NetworkProtocolNumber = protocol
	l.dispatcher.DeliverNetworkPacket(protocol, packet)
	packet.DecRef()
	return view
}

// classify tells which protocol a packet (with its vnet header) is of, and whether it is one for us: what goes
// to or comes from many, nobody or a loopback has no business on this link. All else that can be wrong with a
// packet is left to the stack.
func classify(frame []byte) (tcpip.NetworkProtocolNumber, bool) {
	if len(frame) <= vnetHeader {
		return 0, false
	}
	packet := frame[vnetHeader:]
	switch {
	case packet[0]>>4 == 4 && len(packet) >= header.IPv4MinimumSize:
		src, dst := netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))
		return ipv4.ProtocolNumber, unicast(src) && unicast(dst)
	case packet[0]>>4 == 6 && len(packet) >= header.IPv6MinimumSize:
		src, dst := netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40]))
		return ipv6.ProtocolNumber, unicast(src) && unicast(dst)
	}
	return 0, false
}

func unicast(addr netip.Addr) bool {
	return !addr.IsUnspecified() && !addr.IsMulticast() && !addr.IsLoopback() && addr != broadcast
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// WritePackets implements stack.LinkWriter.
func (l *link) WritePackets(packets stack.PacketBufferList) (int, tcpip.Error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.fd < 0 {
		return 0, &tcpip.ErrClosedForSend{}
	}
	for i, packet := range packets.AsSlice() {
		if err := l.write(packet); err != 0 {
			l.dropped.Add(1)
			return i, tcpip.TranslateErrno(err)
		}
	}
	return packets.Len(), nil
}

func (l *link) write(packet *stack.PacketBuffer) unix.Errno {
	var vnet [vnetHeader]byte
	if gso := &packet.GSOOptions; gso.Type != stack.GSONone {
		binary.NativeEndian.PutUint16(vnet[2:], uint16(packet.HeaderSize()))
		if gso.NeedsCsum {
			vnet[0] = needsCsum
			binary.NativeEndian.PutUint16(vnet[6:], gso.L3HdrLen)
			binary.NativeEndian.PutUint16(vnet[8:], gso.CsumOffset)
		}
		if packet.Data().Size() > int(gso.MSS) {
			vnet[1] = gsoTCPv4
			if gso.Type == stack.GSOTCPv6 {
				vnet[1] = gsoTCPv6
			}
			binary.NativeEndian.PutUint16(vnet[4:], gso.MSS)
		}
	}
	if packet.TransportProtocolNumber == header.TCPProtocolNumber {
		l.flag(packet)
	}
	var space [8]unix.Iovec
	iovecs := rawfile.AppendIovecFromBytes(space[:0], vnet[:], rawfile.MaxIovs)
	for _, part := range packet.AsSlices() {
		iovecs = rawfile.AppendIovecFromBytes(iovecs, part, rawfile.MaxIovs)
	}
	return rawfile.NonBlockingWriteIovec(l.fd, iovecs)
}

// shut closes the device and waits for read to end.
func (l *link) shut() error {
	l.mu.Lock()
	l.fd = -1
	l.mu.Unlock()
	err := l.file.Close()
	if l.dispatcher != nil {
		<-l.done
	}
	return err
}

// The rest of stack.LinkEndpoint and stack.GSOEndpoint.

// Capabilities says that nobody need verify what a pod's kernel sends: checksums are mostly not there yet, and
// between it and us are only bytes in memory.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

func (l *link) Attach(dispatcher stack.NetworkDispatcher) {
	if dispatcher != nil {
		l.dispatcher = dispatcher
	}
}

func (l *link) IsAttached() bool                        { return l.dispatcher != nil }
func (l *link) GSOMaxSize() uint32                      { return 65535 }
func (l *link) SupportedGSO() stack.SupportedGSO        { return stack.HostGSOSupported }
func (l *link) MTU() uint32                             { return l.mtu }
func (l *link) SetMTU(uint32)                           {}
func (l *link) MaxHeaderLength() uint16                 { return 0 }
func (l *link) LinkAddress() tcpip.LinkAddress          { return "" }
func (l *link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (l *link) AddHeader(*stack.PacketBuffer)           {}
func (l *link) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (l *link) Wait()                                   {}
func (l *link) Close()                                  {}
func (l *link) SetOnCloseAction(func())                 {}

var _ stack.GSOEndpoint = (*link)(nil)
