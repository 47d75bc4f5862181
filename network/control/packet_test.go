package control

import (
	"errors"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
)

// reportOf reports of so many ports.
func reportOf(ports int) *Answer {
	report := &Report{Ports: []PortReport{}}
	for i := range ports {
		report.Ports = append(report.Ports, PortReport{Pod: "+.pod", Port: network.Port{HostPort: uint16(i), PodPort: uint16(i), Protocol: "tcp"}})
	}
	return &Answer{Status: report}
}

func TestMessagesOfAllSizes(t *testing.T) {
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	sizes := []int{0, 1, 700, 1000, 2000, 65535}
	go func() {
		defer theirs.Close()
		for _, size := range sizes {
			if err := Send(theirs, reportOf(size), null, null); err != nil {
				t.Error(err)
			}
		}
	}()
	for _, size := range sizes {
		got := &Answer{}
		files, err := Receive(ours, got)
		if err != nil || len(files) != 2 || !reflect.DeepEqual(got, reportOf(size)) {
			t.Errorf("%d ports: %d descriptors, %d ports, %v", size, len(files), len(got.Status.Ports), err)
		}
		Close(files)
	}
	if _, err := Receive(ours, &Answer{}); !errors.Is(err, io.EOF) {
		t.Errorf("after all: %v", err)
	}
}

// A message just as long as a packet, and those around it.
func TestMessagesAroundOnePacket(t *testing.T) {
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	for size := largest - 20; size < largest+5; size++ {
		want := strings.Repeat("+", size)
		go func() {
			if err := Send(theirs, &Answer{Error: want}); err != nil {
				t.Error(err)
			}
		}()
		got := &Answer{}
		if _, err := Receive(ours, got); err != nil || got.Error != want {
			t.Fatalf("%d: %d bytes, %v", size, len(got.Error), err)
		}
	}
}

func TestPartsThatDoNotBelongTogether(t *testing.T) {
	for _, packets := range [][]string{{"+{", "{}"}, {".{}"}, {"+", "+", ".}"}, {"x"}, {"+{"}} {
		ours, theirs, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		for _, packet := range packets {
			if err := unix.Send(int(theirs.Fd()), []byte(packet), 0); err != nil {
				t.Fatal(err)
			}
		}
		theirs.Close()
		if _, err := Receive(ours, &Answer{}); err == nil {
			t.Errorf("%s is a message", strconv.Quote(strings.Join(packets, " ")))
		}
		ours.Close()
	}
}

// Descriptors that don't fit are an error that says what is too small.
func TestTooManyDescriptors(t *testing.T) {
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	if err := Send(theirs, &Request{Do: Publish}, ours, ours, ours); err != nil {
		t.Fatal(err)
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: files.Max}); err != nil {
		t.Fatal(err)
	}
	_, err = Receive(ours, &Request{})
	if rerr := unix.Setrlimit(unix.RLIMIT_NOFILE, &files); rerr != nil {
		t.Fatal(rerr)
	}
	if !errors.Is(err, unix.EMFILE) {
		t.Errorf("%v", err)
	}
}
