package stack

import (
	"encoding/hex"
	"io"
	"math"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/podsh/podsh/network/testns"
	"github.com/podsh/podsh/network/testurgent"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Urgent data is urgent at the other end, whoever sends it: it is not in the stream, and marks its place. It may be the
// first that is said.
func TestUrgentData(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	l.start(Config{})
	port := 80
	for i := range 40 { // in pieces of all kinds
		family, before := families[i%2], []string{"abc", ""}[i/2%2]
		done := make(chan bool)
		port++
		l.listen(l.other, join(family.other, port), func(c *net.TCPConn) {
			defer close(done)
			testurgent.Listen(t, c, before, "the server")
			testurgent.Talk(t, c, before)
		})
		c, err := l.dial("tcp", join(family.other, port))
		if err != nil {
			t.Fatal(family.name, err)
		}
		testurgent.Talk(t, c.(*net.TCPConn), before)
		testurgent.Listen(t, c.(*net.TCPConn), before, "the pod")
		<-done
		if t.Failed() {
			return
		}
	}
}

// Urgent data that goes both ways at any time, without anything that follows it, arrives.
func TestUrgentDataAlone(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	l.start(Config{})
	pod, server := l.connect(80)
	for i := range 50 {
		for from, to := range map[*net.TCPConn]*net.TCPConn{pod: server, server: pod} {
			want := byte('a' + i%26)
			testurgent.Send(t, from, want)
			if got := testurgent.Take(t, to); got != string(want) {
				t.Fatalf("%q, not %q", got, want)
			}
			if _, err := from.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if n, err := io.ReadFull(to, make([]byte, 1)); n != 1 {
				t.Fatal(err)
			}
		}
	}
}

// What comes beside urgent data is whole, however much of it there is, and all that is before the urgent byte is.
func TestUrgentDataInBulk(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	l.start(Config{})
	const size = 3 << 20
	pass := func(from, to *net.TCPConn) {
		go func() {
			from.Write(make([]byte, size))
			testurgent.Send(t, from, '!')
			from.Write(make([]byte, size))
			from.CloseWrite()
		}()
		before := make([]byte, size)
		_, err := io.ReadFull(to, before)
		urgent := testurgent.Take(t, to)
		after, failed := io.ReadAll(to)
		if err != nil || failed != nil || urgent != "!" || len(after) != size || strings.Contains(string(before)+string(after), "!") {
			t.Errorf("urgent %q, and data, or %d bytes after it: %v, %v", urgent, len(after), err, failed)
		}
	}
	for i := 0; i < 5 && !t.Failed(); i++ {
		pod, server := l.connect(80 + i)
		pass(pod, server)
		pass(server, pod)
	}
}

// TestUrgentMark: what is said of urgent data is taken as kernels take it, where sequence numbers go round, too.
func TestUrgentMark(t *testing.T) {
	for name, c := range map[string]struct {
		next  uint32
		marks []uint32
		want  string // what is sent of 0123456789: urgent bytes in brackets
	}{
		"none":                 {next: 100, want: "0123456789"},
		"the first":            {100, []uint32{100}, "[0]123456789"},
		"the last":             {100, []uint32{109}, "012345678[9]"},
		"after what there is":  {100, []uint32{110}, "0123456789"},
		"the same again":       {100, []uint32{104, 104}, "0123[4]56789"},
		"the newer":            {100, []uint32{103, 104}, "0123[4]56789"},
		"the newer, before":    {100, []uint32{104, 103}, "0123[4]56789"},
		"long gone":            {100, []uint32{99}, "0123456789"},
		"beyond reach":         {100, []uint32{100 + reach, 100 + 1<<31, 99 + 1<<31}, "0123456789"},
		"beyond reach, before": {100, []uint32{104, 100 + reach}, "0123[4]56789"},
		"round":                {math.MaxUint32 - 2, []uint32{4}, "0123456[7]89"},
		"round, and newer":     {math.MaxUint32 - 2, []uint32{math.MaxUint32, 0}, "012[3]456789"},
		"round, and older":     {math.MaxUint32 - 2, []uint32{0, math.MaxUint32}, "012[3]456789"},
	} {
		var u urgent
		u.next.Store(c.next)
		for _, mark := range c.marks {
			u.note(mark)
		}
		sent := ""
		for data := []byte("0123456789"); len(data) > 0; {
			part, urgent := u.cut(data)
			if data = data[len(part):]; urgent {
				sent += "[" + string(part) + "]"
			} else {
				sent += string(part)
			}
			u.copied(len(part))
		}
		if sent != c.want {
			t.Errorf("%s: %s, not %s", name, sent, c.want)
		}
	}
}

// An urgent byte that was sent is not taken for another when sequence numbers have gone round, and segments point to it
// only while they can.
func TestUrgentMarkGoesRound(t *testing.T) {
	var u urgent
	u.next.Store(math.MaxUint32 - 9)
	u.come(0)
	u.copied(1)
	at := func(seq uint32) (pointer uint16) {
		segment := header.TCP(make([]byte, header.TCPMinimumSize))
		segment.Encode(&header.TCPFields{SeqNum: seq, Flags: header.TCPFlagAck})
		u.point(segment)
		if urgent := segment.Flags() == header.TCPFlagAck|header.TCPFlagUrg; urgent != (segment.UrgentPointer() != 0) {
			t.Errorf("flags %s with pointer %d", segment.Flags(), segment.UrgentPointer())
		}
		return segment.UrgentPointer()
	}
	mark := uint32(math.MaxUint32 - 9)
	for seq, want := range map[uint32]uint16{mark: 1, mark - 1: 2, mark - 65534: 65535, mark - 65535: 0, mark + 1: 0, 5: 0} {
		if got := at(seq); got != want {
			t.Errorf("segment %d points to %d, not %d", seq, got, want)
		}
	}
	data := make([]byte, 1<<19)
	for range 1 << 13 {
		u.copied(1 << 19)
		if part, urgent := u.cut(data); urgent || len(part) != 1<<19 {
			t.Fatalf("at %d it is urgent, or only %d bytes are sent", u.next.Load(), len(part))
		}
	}
	if at(mark) != 0 {
		t.Error("it still points to what was urgent once")
	}
}

// The URG flag is found where Linux puts it, whatever the packet pretends.
func TestInspect(t *testing.T) {
	const segment = "d4310050 00000007 00000000 5020faf0 0000 0003"
	for name, c := range map[string]struct {
		packet string
		found  bool
	}{
		"IPv4":                    {"45000028000040004006 0000 0a000264 0a090002" + segment, true},
		"IPv4, options":           {"4600002c000040004006 0000 0a000264 0a090002 01010101" + segment, true},
		"IPv6":                    {"60000000001406 40 fd000000000000000000000000000100 fd090000000000000000000000000002" + segment, true},
		"no URG":                  {"45000028000040004006 0000 0a000264 0a090002" + strings.Replace(segment, "5020", "5010", 1), false},
		"UDP":                     {"45000028000040004011 0000 0a000264 0a090002" + segment, false},
		"UDP over IPv6":           {"60000000001411 40 fd000000000000000000000000000100 fd090000000000000000000000000002" + segment, false},
		"a later fragment":        {"45000028000000104006 0000 0a000264 0a090002" + segment, false},
		"cut off":                 {"45000028000040004006 0000 0a000264 0a090002" + segment[:len(segment)-2], false},
		"options that are no end": {"4f000028000040004006 0000 0a000264 0a090002" + segment, false},
	} {
		raw, err := hex.DecodeString(stripSpaces(c.packet))
		if err != nil {
			t.Fatal(name, err)
		}
		found := 0
		l := link{flagged: func(id stack.TransportEndpointID, segment header.TCP) {
			found++
			if id.LocalPort != 80 || id.RemotePort != 0xd431 || segment.SequenceNumber() != 7 || segment.UrgentPointer() != 3 {
				t.Errorf("%s: %+v, %x", name, id, segment)
			}
			if a := fromStack(id.RemoteAddress); a != podAddr4 && a != netip.MustParseAddr("fd00::100") {
				t.Errorf("%s: from %s", name, a)
			}
		}}
		l.inspect(raw)
		if found != 0 != c.found {
			t.Errorf("%s: found %d times", name, found)
		}
	}
}

// Segments that say of another's stream what its kernel can't have said change nothing about it.
func TestUrgentDataFromStrangers(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	s := l.start(Config{})
	pod, server := l.connect(80)
	s.mu.Lock()
	var a *attempt
	for _, a = range s.attempts {
	}
	s.mu.Unlock()
	raw, err := hex.DecodeString(stripSpaces("45000028000040004006 0000 0a000264 0a090002 00000050 00000000 00000000 5030faf0 0000 0001"))
	if err != nil {
		t.Fatal(err)
	}
	segment := header.TCP(raw[header.IPv4MinimumSize:])
	segment.SetSourcePort(pod.LocalAddr().(*net.TCPAddr).AddrPort().Port())
	header.IPv4(raw).SetChecksum(^header.IPv4(raw).CalculateChecksum())
	for i := range uint32(2000) {
		segment.SetSequenceNumber(a.up.next.Load() + reach + i<<20)
		view := buffer.NewViewSize(buffer.MaxChunkSize)
		n := vnetHeader + copy(view.AsSlice()[vnetHeader:], raw)
		s.link.inject(view, n).Release()
	}
	if a.up.mark.Load() != 0 {
		t.Error("it was believed")
	}
	go func() {
		pod.Write(make([]byte, 4<<20))
		pod.CloseWrite()
	}()
	if all, err := io.ReadAll(server); len(all) != 4<<20 || err != nil {
		t.Errorf("%d bytes arrived, %v", len(all), err)
	}
}
