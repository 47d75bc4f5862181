package helper

import (
	"encoding/json"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/network/names"
	"github.com/podsh/podsh/network/relay"
)

// FuzzAnswer: a helper of all pods answers requests of every version of podsh, and ends by none of them. A pod is served
// already; the descriptors lead nowhere.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{
		`{"do":"hello"}`, `{"do":"status"}`, `{"do":"status","pod":"p"}`, `{"do":"forget","pod":"p"}`, `{"do":"resolve","address":"10.0.2.3"}`,
		`{"do":"serve","member":{"id":"q","addresses":["10.0.2.100"],"networks":{"a":null},"dns":["::1"]}}`, `{"do":"serve"}`,
		`{"do":"update","member":{"id":"p","addresses":["10.0.2.100","10.0.2.101",""]}}`, `{"do":"update","member":null}`,
		`{"do":"publish","pod":"p","ports":[{"host_port":80,"pod_port":80,"protocol":"tcp"}],"sockets":[1]}`,
		`{"do":"publish","pod":"p","ports":[{},{}],"sockets":[-1,9]}`, `{"do":"unpublish","pod":"p","ports":[{}]}`,
		`{"do":"way out","pod":"p"}`, `{"do":"way out","pod":"p","way":{"mtu":-1}}`, `{"do":"listen"}`, `{"do":"x"}`,
	} {
		f.Add([]byte(text), 0)
		f.Add([]byte(text), 1)
		f.Add([]byte(text), 2)
	}
	f.Fuzz(func(t *testing.T, text []byte, count int) {
		request := &control.Request{}
		if json.Unmarshal(text, request) != nil || request.Way != nil && request.Way.Program != "" {
			return // it starts what the user has asked for
		}
		h := &helper{members: map[string]*member{}, end: make(chan struct{})}
		var err error
		if h.relay, err = relay.New(relay.Limits{Connections: 16, Sessions: 16}); err != nil {
			t.Fatal(err)
		}
		defer h.relay.Close()
		h.names = names.New(names.Config{HostAddresses: h.hostAddresses})
		h.allow()
		lives, err := unix.Eventfd(0, unix.EFD_CLOEXEC) // in place of a pidfd, which would tell of an end
		if err != nil {
			t.Fatal(err)
		}
		ends, err := unix.FcntlInt(uintptr(lives), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(ends)
		first := &control.Request{Do: control.Serve, Member: &control.Member{ID: "p", Addresses: []netip.Addr{network.OwnAddress4.Addr()}}}
		if _, err := h.answer(first, append([]*os.File{os.NewFile(uintptr(lives), "pidfd")}, nulls(t, 1)...)); err != nil {
			t.Fatal(err)
		}
		answer, err := h.answer(request, nulls(t, min(max(count, 0), 3)))
		if answer == nil && err == nil {
			t.Errorf("%s: no answer", text)
		}
		if _, err := unix.Write(ends, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
		h.lock.Lock()
		defer h.lock.Unlock()
		for id := range h.members {
			h.drop(id)
		}
	})
}

func nulls(t *testing.T, count int) (files []*os.File) {
	t.Helper()
	for range count {
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, null)
	}
	return files
}
