package ids

import (
	"slices"
	"testing"
)

func TestIDsSeenIn(t *testing.T) {
	hub := []Map{{0, 1000, 1}, {1, 100000, 65536}}
	for _, c := range []struct{ host, want []Map }{
		{hub, same(hub)},
		{[]Map{{0, 100000, 10}}, []Map{{0, 1, 10}}},
		{[]Map{{5, 1000, 1}, {6, 165535, 1}}, []Map{{5, 0, 1}, {6, 65536, 1}}},
	} {
		if got, err := SeenIn(c.host, hub); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, %v", c.host, got, err)
		}
	}
	if _, err := SeenIn([]Map{{0, 165535, 2}}, hub); err == nil {
		t.Error("an id that the hub has not was taken")
	}
}

// same is a map of all ids to themselves.
func same(ids []Map) (same []Map) {
	for _, m := range ids {
		same = append(same, Map{m.Inside, m.Inside, m.Count})
	}
	return same
}

func TestKeepMap(t *testing.T) {
	got := KeepMap(1000, []Range{{100000, 500}, {200000, 65036}})
	want := []Map{{0, 100000, 500}, {500, 200000, 500}, {1001, 200500, 64536}, {1000, 1000, 1}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if err := Validate("keepMap", got); err != nil {
		t.Error(err)
	}
}

func FuzzParseIDMap(f *testing.F) {
	f.Add("         0       1000          1\n         1     100000      65536\n")
	f.Add("0 0 4294967295\n")
	f.Add("0 0\n")
	f.Fuzz(func(t *testing.T, text string) {
		ids, err := ParseFile("uid_map", text)
		if err != nil {
			return
		}
		again, err := ParseFile("uid_map", Lines(ids))
		if err != nil || !slices.Equal(ids, again) {
			t.Errorf("%q: %v, then %v, %v", text, ids, again, err)
		}
	})
}
