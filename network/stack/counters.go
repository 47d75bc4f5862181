package stack

import "sync/atomic"

// Counters say what a Stack has done. Bytes are those of TCP streams, UDP datagrams and echo messages, without
// headers. What limits refused Uses says.
type Counters struct {
	Connections int // TCP, open now
	Flows       int // mappings of UDP and ping, now

	Opened  uint64 // TCP connections that were accepted
	Failed  uint64 // TCP connections that the host could not make
	Refused uint64 // connections, datagrams and pings that policy refused
	Dropped uint64 // packets that were malformed, from strangers, or that a full socket or device did not let through
	Queries uint64 // DNS queries answered
	Sent    uint64 // bytes from pods to the host
	Fetched uint64 // bytes from the host to pods
}

type counters struct {
	opened, failed, refused, dropped, queries, sent, fetched atomic.Uint64
}

// Counters returns them as they are now.
func (s *Stack) Counters() Counters {
	s.mu.Lock()
	flows := len(s.mappings)
	s.mu.Unlock()
	c := &s.counters
	return Counters{
		Connections: s.limits.connections.All().Used, Flows: flows,
		Opened: c.opened.Load(), Failed: c.failed.Load(), Refused: c.refused.Load(),
		Dropped: c.dropped.Load() + s.link.dropped.Load(), Queries: c.queries.Load(),
		Sent: c.sent.Load(), Fetched: c.fetched.Load(),
	}
}
