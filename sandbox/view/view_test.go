package view

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// mapOf makes a map by hand: residents by their namespaces user, pid and net, and who owns what.
func mapOf(owners map[uint64]uint64, residents map[string][3]uint64) *Map {
	m := &Map{parents: owners, makers: map[uint64]uint32{}}
	for _, name := range []string{HostName, "web", "db", "batch"} {
		inodes, ok := residents[name]
		if !ok {
			continue
		}
		r := &Resident{Name: name, ID: name, Host: name == HostName, Namespaces: map[string]Shared{}}
		for i, kind := range []string{"user", "pid", "net"} {
			r.Namespaces[kind] = Shared{Inode: inodes[i], Owner: owners[inodes[i]]}
		}
		m.Residents = append(m.Residents, r)
	}
	m.share()
	return m
}

// outline is a tree in one line.
func outline(branches []*Branch) string {
	var parts []string
	for _, b := range branches {
		var inside []string
		for _, g := range b.Groups {
			inside = append(inside, strings.Join(g.Residents, "+")+":"+strings.Join(g.Namespaces, "+"))
		}
		if below := outline(b.Below); below != "" {
			inside = append(inside, below)
		}
		parts = append(parts, fmt.Sprintf("%d(%s)", b.Inode, strings.Join(inside, " ")))
	}
	return strings.Join(parts, " ")
}

func TestTree(t *testing.T) {
	for _, test := range []struct {
		name      string
		owners    map[uint64]uint64
		residents map[string][3]uint64
		want      string
	}{
		{"the host alone", map[uint64]uint64{2: 1, 3: 1},
			map[string][3]uint64{HostName: {1, 2, 3}},
			"1((host):pid+net)"},
		{"two pods share all but pid", map[uint64]uint64{2: 1, 3: 1, 10: 1, 11: 10, 12: 10, 13: 10},
			map[string][3]uint64{HostName: {1, 2, 3}, "web": {10, 11, 12}, "db": {10, 13, 12}},
			"1((host):pid+net 10(web:pid web+db:net db:pid))"},
		{"root's pods have no user namespace", map[uint64]uint64{2: 1, 3: 1, 11: 1},
			map[string][3]uint64{HostName: {1, 2, 3}, "web": {1, 11, 3}},
			"1((host):pid (host)+web:net web:pid)"},
		{"nobody of the map lives in between", map[uint64]uint64{2: 1, 3: 1, 5: 1, 10: 5, 11: 10, 12: 5},
			map[string][3]uint64{HostName: {1, 2, 3}, "web": {10, 11, 12}},
			"1((host):pid+net web:net 10(web:pid))"},
		{"the host is a pod itself", map[uint64]uint64{2: 0, 3: 1, 10: 1, 11: 10},
			map[string][3]uint64{HostName: {1, 2, 3}, "web": {10, 11, 3}},
			"0((host):pid 1((host)+web:net 10(web:pid)))"},
	} {
		if got := outline(mapOf(test.owners, test.residents).Tree()); got != test.want {
			t.Errorf("%s:\n %s, not\n %s", test.name, got, test.want)
		}
	}
}

func TestAround(t *testing.T) {
	residents := map[string][3]uint64{HostName: {1, 2, 3}, "web": {10, 11, 12}, "db": {20, 21, 12}, "batch": {30, 31, 3}}
	for id, want := range map[string][]string{
		"web":   {HostName, "web", "db"},
		"batch": {HostName, "batch"}, // what the host shares with all says nothing
	} {
		m := mapOf(map[uint64]uint64{}, residents)
		m.Around([]string{id})
		var names []string
		for _, r := range m.Residents {
			names = append(names, r.Name)
		}
		if !slices.Equal(names, want) {
			t.Errorf("around %s: %q, not %q", id, names, want)
		}
	}
}
