package share

import (
	"sync"
	"testing"
)

// take takes for owner until it is refused, and says how often it was not.
func take(l *Limit[string], owner string) (n int) {
	for l.Take(owner) {
		n++
	}
	return n
}

// Greedy owners, one after the other, and whoever comes later finds a place.
func TestShares(t *testing.T) {
	for _, most := range []int{1, 2, 3, 7, 100, 4096} {
		l := New[string](most)
		first := take(l, "first")
		if want := (most + 1) / 2; first != want {
			t.Errorf("of %d the first has %d, not %d", most, first, want)
		}
		free := most - first
		if second := take(l, "second"); second != (free+1)/2 {
			t.Errorf("of %d the second has %d of %d free", most, second, free)
		}
		if all := l.All(); all.Used > most || all.Refused != 2 {
			t.Errorf("of %d: %+v", most, all)
		}
	}
}

// However many want all they can get, and take turns, each gets the same, and something is left.
func TestSharesAreEqual(t *testing.T) {
	const most, greedy = 1000, 9
	l := New[int](most)
	for range most {
		for owner := range greedy {
			l.Take(owner)
		}
	}
	for owner := range greedy {
		if use := l.Of(owner); use.Used < most/(greedy+1) || use.Used > most/(greedy+1)+1 {
			t.Errorf("owner %d: %+v", owner, use)
		}
	}
	if !l.Take(greedy) {
		t.Error("nothing is left for one who comes late")
	}
}

// What is given back is there for others, and what was refused is known until its owner is forgotten.
func TestGiveAndForget(t *testing.T) {
	l := New[string](8)
	if n := take(l, "a"); n != 4 {
		t.Fatal(n)
	}
	if use := l.Of("a"); use != (Use{Used: 4, Limit: 4, Refused: 1}) {
		t.Errorf("%+v", use)
	}
	if use := l.Of("b"); use != (Use{Limit: 2}) {
		t.Errorf("%+v", use)
	}
	for range 4 {
		l.Give("a")
	}
	if use := l.Of("a"); use != (Use{Limit: 4, Refused: 1}) {
		t.Errorf("%+v", use)
	}
	l.Forget("a")
	if use := l.Of("a"); use != (Use{Limit: 4}) || len(l.owners) != 0 {
		t.Errorf("%+v, %d owners", use, len(l.owners))
	}
	if all := l.All(); all != (Use{Limit: 8, Refused: 1}) {
		t.Errorf("%+v", all)
	}
	defer func() {
		if recover() == nil {
			t.Error("what nobody has was given back")
		}
	}()
	l.Give("a")
}

// A limit of one owner alone has no shares.
func TestWhole(t *testing.T) {
	if n := take(Whole[string](8), "a"); n != 8 {
		t.Error(n)
	}
	var none Limit[string]
	if n := take(&none, "a"); n != 0 {
		t.Error(n)
	}
}

// Owners that come and go leave nothing behind, and the sum is right.
func TestMany(t *testing.T) {
	l := New[int](64)
	var all sync.WaitGroup
	for owner := range 32 {
		all.Go(func() {
			for range 1000 {
				if l.Take(owner) {
					l.Give(owner)
				}
			}
			l.Forget(owner)
		})
	}
	all.Wait()
	if use := l.All(); use.Used != 0 || len(l.owners) != 0 {
		t.Errorf("%+v, %d owners", use, len(l.owners))
	}
}
