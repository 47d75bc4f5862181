package stack

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
)

// packets are seeds: SYN to anyone and to the resolver, UDP to the resolver, echo request, each of both families, fragments.
var packets = []string{
	"4500003c000040004006 0000 0a000264 0a090002 d4310050 00000001 00000000 a002faf0 0000 0000 020405b40402080a0000000100000000 01030307",
	"4500002800004000400600000a0002640a000203d431003500000001000000005002faf000000000",
	"45000021000040004011 0000 0a000264 0a000203 d4310035 000d 0000 7765623f21",
	"4500001c000040004001 0000 0a000264 0a000202 0800 f7fd 0001 0001",
	"4500001c000020004011 0000 0a000264 0a000203 d4310035 0008 0000",
	"60000000001406 40 fd000000000000000000000000000100 fd090000000000000000000000000002 d4310050 00000001 00000000 5002faf0 0000 0000",
	"60000000000a11 40 fd000000000000000000000000000100 fd000000000000000000000000000003 d4310035 000a 0000 7765",
	"60000000000c00 40 fd000000000000000000000000000100 fd000000000000000000000000000002 3a00050200000000 8000000000010001",
	"600000000010 2c40 fd000000000000000000000000000100 fd000000000000000000000000000003 11000001 00000001 d431003500080000",
}

// urgentPackets are seeds as well, in connections that packets begin; they would complete them.
var urgentPackets = []string{
	"4500002800004000400600000a0002640a000203d431003500000002000000005030faf000000001",
	"60000000001406 40 fd000000000000000000000000000100 fd000000000000000000000000000003 d4310035 00000001 00000000 5022faf0 0000 ffff",
}

// FuzzInject feeds the stack arbitrary bytes where the device's packets come in. Policy blocks everything, so
// no socket of the host is ever made; the gateway, the resolver and all that lies before policy answer.
func FuzzInject(f *testing.F) {
	for _, text := range slices.Concat(packets, urgentPackets) {
		raw, err := hex.DecodeString(stripSpaces(text))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(make([]byte, vnetHeader), raw...))
	}
	f.Add([]byte{})
	f.Add(make([]byte, vnetHeader+1))
	w := newWire(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) <= buffer.MaxChunkSize {
			w.inject(frame)
		}
	})
}

// wire is a Stack on a socket pair in place of a tun device, which blocks every destination.
type wire struct {
	*Stack
	pod     int
	drained [1 << 16]byte
}

func newWire(t testing.TB) *wire {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{
		Tun: os.NewFile(uintptr(pair[0]), "tun"), Gateway: []netip.Addr{gateway4, gateway6}, Resolver: []netip.Addr{resolver4, resolver6},
		DNS:     func(_ context.Context, query []byte, _ netip.Addr, _ bool) []byte { return query },
		Blocked: func(netip.Addr, netip.Addr) bool { return true },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		unix.Close(pair[1])
	})
	return &wire{Stack: s, pod: pair[1]}
}

// inject gives the stack a packet with its vnet header, and throws away what it says to that.
func (w *wire) inject(frame []byte) {
	view := buffer.NewViewSize(buffer.MaxChunkSize)
	copy(view.AsSlice(), frame)
	w.link.inject(view, len(frame)).Release()
	for {
		if _, err := unix.Read(w.pod, w.drained[:]); err != nil {
			return
		}
	}
}

// A flood of SYNs to the gateway and the resolver, and one of fragments, holds no more than the limits say.
func TestFlood(t *testing.T) {
	w := newWire(t)
	for _, text := range packets {
		packet, err := hex.DecodeString(stripSpaces(text))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2000 {
			switch packet[0] >> 4 {
			case 4:
				binary.BigEndian.PutUint16(packet[4:], uint16(i))
				binary.BigEndian.PutUint16(packet[20:], uint16(i))
			case 6:
				binary.BigEndian.PutUint16(packet[12:], uint16(i))
				binary.BigEndian.PutUint16(packet[40:], uint16(i)|uint16(packet[40])<<8)
			}
			w.inject(append(make([]byte, vnetHeader), packet...))
		}
	}
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	dials := sizesFor(defaultDescriptors).dials
	if n := runtime.NumGoroutine(); n > 2*dials+100 {
		t.Errorf("%d goroutines", n)
	}
	if memory.HeapAlloc > 32<<20 {
		t.Errorf("%d bytes in use", memory.HeapAlloc)
	}
	if c := w.Counters(); c.Connections > dials || c.Flows != 0 {
		t.Errorf("counters: %+v", c)
	}
}

func stripSpaces(text string) string {
	var out []byte
	for i := range len(text) {
		if text[i] != ' ' {
			out = append(out, text[i])
		}
	}
	return string(out)
}

// Malformed, strange and hostile packets of every length are taken without a crash.
func FuzzClassify(f *testing.F) {
	f.Add([]byte{10: 0x45})
	f.Fuzz(func(t *testing.T, frame []byte) { classify(frame) })
}
