package names

import (
	"context"
	"sync"
)

// shares bounds how many of a thing there are, in all and for each pod. Where all are taken, a pod that has few of
// them gets one of the pod's that has most: its oldest ends. So however many pods wait for servers that say nothing,
// another's question finds a place.
type shares struct {
	all, each int

	mu    sync.Mutex
	taken int
	by    map[string]*share // by the pod's id
}

// share is what one pod has.
type share struct {
	places  []*place // the oldest first
	refused uint64   // since the pod came: it had too many, or one was given to another
}

// place is one thing that a pod has. The context ends when it is another's.
type place struct {
	context.Context
	end    context.CancelFunc
	shares *shares
	pod    string
}

// take gives the pod one more, or nil; if it does, give must follow.
func (s *shares) take(ctx context.Context, pod string) *place {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := s.of(pod)
	if len(mine.places) >= s.each || s.taken >= s.all && !s.yield(len(mine.places)) {
		mine.refused++
		return nil
	}
	p := &place{shares: s, pod: pod}
	p.Context, p.end = context.WithCancel(ctx)
	mine.places = append(mine.places, p)
	s.taken++
	return p
}

// yield ends the oldest of whoever has most, if that leaves it no less than a pod that has so many, and one more.
func (s *shares) yield(has int) bool {
	var most *share
	for _, other := range s.by {
		if most == nil || len(other.places) > len(most.places) {
			most = other
		}
	}
	if most == nil || len(most.places) <= has+1 {
		return false
	}
	most.refused++
	s.drop(most, most.places[0])
	return true
}

func (s *shares) of(pod string) *share {
	if s.by == nil {
		s.by = map[string]*share{}
	}
	if s.by[pod] == nil {
		s.by[pod] = &share{}
	}
	return s.by[pod]
}

// drop ends a place, if it is still one.
func (s *shares) drop(from *share, p *place) {
	for i, other := range from.places {
		if other == p {
			from.places = append(from.places[:i], from.places[i+1:]...)
			s.taken--
			break
		}
	}
	p.end()
}

// give gives a place back, which may be another's already.
func (p *place) give() {
	p.shares.mu.Lock()
	defer p.shares.mu.Unlock()
	if mine := p.shares.by[p.pod]; mine != nil {
		p.shares.drop(mine, p)
	}
	p.end()
}

// forget ends all that a pod has that is gone, and forgets what it was refused.
func (s *shares) forget(pod string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := s.by[pod]
	delete(s.by, pod)
	for mine != nil && len(mine.places) > 0 {
		s.drop(mine, mine.places[0])
	}
}

// Usage is what a pod has of what all share.
type Usage struct {
	Open    int    // now
	Limit   int    // the most that it gets
	Refused uint64 // so far
}

func (s *shares) usage(pod string) Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := Usage{Limit: min(s.each, s.all)}
	if mine := s.by[pod]; mine != nil {
		u.Open, u.Refused = len(mine.places), mine.refused
	}
	return u
}
