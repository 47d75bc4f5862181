package control

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzReceive: what comes over a connection is a message or an error, and no descriptor that came with it stays
// open without an owner.
func FuzzReceive(f *testing.F) {
	f.Add([]byte(`{"do":"serve","pod":"p","member":{"id":"p","addresses":["10.0.2.100"],"host_ports":[1,2]}}`), 2)
	f.Add([]byte(`{"do":"publish","ports":[{"host_port":1,"pod_port":2,"protocol":"tcp"}],"sockets":[-1]}`), 1)
	f.Add([]byte(`{"do":7}`), MostSockets)
	f.Add([]byte(``), 3)
	f.Add([]byte(`null`), 0)
	f.Fuzz(func(t *testing.T, text []byte, files int) {
		ours, theirs, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		var fds []int
		for range min(max(files, 0), MostSockets) {
			fds = append(fds, int(theirs.Fd()))
		}
		err = unix.Sendmsg(int(theirs.Fd()), text, unix.UnixRights(fds...), nil, unix.MSG_DONTWAIT)
		theirs.Close()
		if err != nil {
			return // larger than a packet can be
		}
		before := descriptors(t)
		got, err := Receive(ours, &Request{})
		if err != nil && got != nil {
			t.Errorf("%q: %d files with %v", text, len(got), err)
		}
		Close(got)
		if after := descriptors(t); after != before {
			t.Errorf("%q with %d files: %d descriptors became %d, %v", text, len(fds), before, after, err)
		}
	})
}

// descriptors is how many are open: the lowest free one tells whether the count has changed.
func descriptors(t *testing.T) int {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	return int(null.Fd())
}
