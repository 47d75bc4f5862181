package stack

import (
	"container/list"
	"time"
)

// takeFlow takes a place for a mapping; an owner who has his share gives his idlest for it. s.mu is held.
func (s *Stack) takeFlow(owner string) bool {
	if s.limits.flows.Take(owner) {
		return true
	}
	idlest := s.idlest(owner)
	if idlest == nil {
		return false
	}
	s.end(idlest)
	return s.limits.flows.Take(owner)
}

// keep puts a mapping to the others of its owner. s.mu is held.
func (s *Stack) keep(m *mapping) {
	of := s.flowsOf[m.owner]
	if of == nil {
		of = list.New()
		s.flowsOf[m.owner] = of
	}
	m.placed = m.last.Load()
	m.place = of.PushBack(m)
}

// idlest is the mapping of an owner in which nothing has passed for longest, or nearly: those in which something has
// since they got their place go to the back first. s.mu is held.
func (s *Stack) idlest(owner string) *mapping {
	of := s.flowsOf[owner]
	if of == nil {
		return nil
	}
	for range of.Len() {
		m := of.Front().Value.(*mapping)
		last := m.last.Load()
		if last == m.placed {
			break
		}
		m.placed = last
		of.MoveToBack(m.place)
	}
	return of.Front().Value.(*mapping)
}

// end ends a mapping. s.mu is held.
func (s *Stack) end(m *mapping) {
	delete(s.mappings, m.origin)
	of := s.flowsOf[m.owner]
	if of.Remove(m.place); of.Len() == 0 {
		delete(s.flowsOf, m.owner)
	}
	s.limits.flows.Give(m.owner)
	m.file.Close() // lets receive end
}

// sweep ends the mappings that have been idle for too long.
func (s *Stack) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now().UnixNano()
	for _, m := range s.mappings {
		limit := s.limits.asked
		if m.replied.Load() {
			limit = s.limits.replied
		}
		if now-m.last.Load() > int64(limit) {
			s.end(m)
		}
	}
	if len(s.mappings) > 0 {
		s.sweeper.Reset(s.limits.asked / 8)
	}
}
