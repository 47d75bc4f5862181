// Package share divides a limit among those who use it, so that nobody's use keeps the others from theirs. It knows
// owners and numbers, and refuses to know what is counted.
package share

import "sync"

// Limit bounds how many of something there are at a time, for all owners together and for each. An owner alone has
// half, two have a third each, and so on: each may have as many as are still free. So somebody who comes later, and
// has none yet, finds a place however greedy the others are; and while few want any, they have much. (Choudhury and
// Hahne, "Dynamic Queue Length Thresholds", 1998: switches divide their buffers that way.)
//
// The zero value lets nobody have anything. All methods may be called at any time.
type Limit[Owner comparable] struct {
	mu      sync.Mutex
	most    int
	whole   bool
	used    int
	refused uint64
	owners  map[Owner]*owned
}

// owned is what one owner has.
type owned struct {
	used    int
	refused uint64
}

// New makes a limit that many owners share.
func New[Owner comparable](most int) *Limit[Owner] {
	return &Limit[Owner]{most: most, owners: map[Owner]*owned{}}
}

// Whole makes a limit that one owner has for himself: there are no shares.
func Whole[Owner comparable](most int) *Limit[Owner] {
	return &Limit[Owner]{most: most, whole: true, owners: map[Owner]*owned{}}
}

// Use says how a limit is used.
type Use struct {
	Used    int    `json:"used"`
	Limit   int    `json:"limit"`
	Refused uint64 `json:"refused"`
}

// Take takes one for owner; false: he has his share, which is counted. What was taken is given back with Give.
func (l *Limit[Owner]) Take(owner Owner) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	has := l.owners[owner]
	if has == nil {
		has = &owned{}
		if l.owners == nil {
			l.owners = map[Owner]*owned{}
		}
		l.owners[owner] = has
	}
	if has.used >= l.share(has.used) {
		has.refused++
		l.refused++
		return false
	}
	has.used++
	l.used++
	return true
}

// share is how many an owner that has used may have. l.mu is held.
func (l *Limit[Owner]) share(used int) int {
	if l.whole {
		return l.most
	}
	others := l.used - used
	return (l.most - others + 1) / 2 // so that he has no more than are free then; the last one is for who has none
}

// Give gives one back.
func (l *Limit[Owner]) Give(owner Owner) {
	l.mu.Lock()
	defer l.mu.Unlock()
	has := l.owners[owner]
	if has == nil || has.used == 0 {
		panic("share: more was given back than taken")
	}
	has.used--
	l.used--
	if has.used == 0 && has.refused == 0 {
		delete(l.owners, owner)
	}
}

// Forget forgets what an owner was refused, as somebody who won't come again. What he has he still has.
func (l *Limit[Owner]) Forget(owner Owner) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if has := l.owners[owner]; has != nil {
		if has.refused = 0; has.used == 0 {
			delete(l.owners, owner)
		}
	}
}

// Of says what an owner has, and may have as things are.
func (l *Limit[Owner]) Of(owner Owner) Use {
	l.mu.Lock()
	defer l.mu.Unlock()
	has := l.owners[owner]
	if has == nil {
		has = &owned{}
	}
	return Use{Used: has.used, Limit: max(has.used, l.share(has.used)), Refused: has.refused}
}

// All says what all owners have together.
func (l *Limit[Owner]) All() Use {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Use{Used: l.used, Limit: l.most, Refused: l.refused}
}
