// Package relay is the data plane of published ports: it takes what comes in on sockets of the host, and
// copies it to a service in a pod and back.
//
//	client ──> host's socket ══ loop ══ pod's socket ──> service
//	           made by others           made by Sockets, has the client's own address
//
// It owns the descriptors it was handed, the connections and sessions made from them, and the few threads that
// serve them all. It refuses to know who published what and why: it binds no host port, enters no namespace,
// needs no privilege and sets no route. That the service's answers find back to a socket with a foreign
// address is the work of whoever made the pod's network.
package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/share"
)

// Sockets makes sockets in the pod's network namespace.
type Sockets interface {
	// Make makes up to count sockets: non-blocking, close-on-exec, with IP_TRANSPARENT (IPV6_TRANSPARENT)
	// and the pod's mark. family is unix.AF_INET or AF_INET6, kind unix.SOCK_STREAM or SOCK_DGRAM. Fewer
	// than count are fine; none is an error. It may block: nothing but new connections waits for it. It is
	// called by several goroutines at a time. The value behind Sockets must be comparable, as a pointer is.
	Make(family, kind, count int) (fds []int, err error)
}

// Target is a service in a pod.
type Target struct {
	Sockets   Sockets
	Addresses []netip.Addr // the pod's own, at most one of each family
	Port      uint16
	// Bound says whether a UDP port is bound in the pod: where it is not, clients are told so. It is called by several
	// goroutines at a time, and must not block. nil: nobody knows.
	Bound func(port uint16) (bool, error)
}

// Published is a port of the host, and what answers there.
type Published struct {
	// Listeners are listening TCP sockets, or UDP ones that were bound to the number of their port (not to 0); not MPTCP,
	// which package net uses if not told otherwise. They become the relay's, even if Publish returns an error, and their options are changed.
	Listeners []int
	Target    Target
}

// ErrClosed says that the relay is closed.
var ErrClosed = errors.New("the relay is closed")

// Relay serves published ports, any number of them.
type Relay struct {
	starved atomic.Bool // a loop accepts no more for some pod, until a connection ends
	limits  []*limit
	loops   []*loop
	running sync.WaitGroup
	times   times

	publishing sync.RWMutex // Publish reads, Close writes: no port comes late

	mu     sync.Mutex
	ports  map[*Port]bool // nil once closed
	stocks map[stockKey]*stock
	crowds map[crowdKey]*crowd
	next   int // loop of the next UDP socket
}

// times are constants, but in tests. Nobody who has gone without a word keeps a place for longer.
type times struct {
	unanswered time.Duration // life of a UDP session without traffic, as in nf_conntrack
	answered   time.Duration // the same once there were replies
	dial       time.Duration // a service has to have taken a connection by then
	stuck      time.Duration // how long nothing moves of what one end of a connection left for the other
	look       time.Duration // how often it is looked whether a UDP port without a service has one
	deaf       time.Duration // for how long
	tick       time.Duration // how often a loop looks for such, while it has any
	client     keepalive
	service    keepalive
}

// usual are the times. A network that fails for two minutes costs no client its connection. In a pod nothing gets
// lost: a service that has closed a connection is asked soon after its kernel has forgotten that, which takes a
// minute (tcp_fin_timeout in tcp(7)); one that only said its end, and listens on, answers.
var usual = times{
	unanswered: 30 * time.Second,
	answered:   180 * time.Second,
	dial:       2 * time.Minute,
	stuck:      2 * time.Minute,
	look:       100 * time.Millisecond,
	deaf:       time.Minute,
	tick:       time.Second,
	client:     keepalive{idle: 60, interval: 10, count: 9},
	service:    keepalive{idle: 15, interval: 5, count: 9},
}

// maxLoops bounds the threads. They take at most half of the processors: on two, one loop carried more requests
// than two loops, which only took turns with the clients and the services.
const maxLoops = 2

// Limits are how much a relay has open at a time, over all ports.
type Limits struct {
	Connections int  // of TCP; each takes two descriptors
	Sessions    int  // of UDP; each takes one
	Shared      bool // by several pods: none may have all
}

// limit is one of them.
type limit struct {
	kind    int
	name    string
	places  *share.Limit[Sockets]
	refused uint64 // to pods whose ports are closed by now; under Relay.mu
}

// LimitsFor are what so many descriptors are enough for.
func LimitsFor(descriptors int, shared bool) Limits {
	return Limits{Connections: max(1, descriptors*3/10), Sessions: max(1, descriptors/10), Shared: shared}
}

// New starts a relay. A pod whose share of the connections is used up accepts no more, and clients wait in the backlog
// of their listener; a client who has its share is reset. A new UDP session takes the place of its client's idlest, or of
// its port's.
func New(limits Limits) (*Relay, error) {
	if limits.Connections < 1 || limits.Sessions < 1 {
		return nil, fmt.Errorf("limits %+v: at least one of each", limits)
	}
	return start(limits, max(1, min(maxLoops, runtime.NumCPU()/2)))
}

func start(limits Limits, loops int) (*Relay, error) {
	places := share.Whole[Sockets]
	if limits.Shared {
		places = share.New[Sockets]
	}
	r := &Relay{
		limits: []*limit{
			{kind: unix.SOCK_STREAM, name: "connections", places: places(limits.Connections)},
			{kind: unix.SOCK_DGRAM, name: "flows", places: places(limits.Sessions)},
		},
		times:  usual,
		ports:  map[*Port]bool{},
		stocks: map[stockKey]*stock{},
		crowds: map[crowdKey]*crowd{},
	}
	for range loops {
		l, err := newLoop(r)
		if err != nil {
			r.Close()
			return nil, err
		}
		r.loops = append(r.loops, l)
		r.running.Go(l.run)
	}
	return r, nil
}

// Publish begins to serve a port. Errors are of its arguments, or name the call that failed.
func (r *Relay) Publish(p Published) (*Port, error) {
	r.publishing.RLock()
	defer r.publishing.RUnlock()
	port := &Port{relay: r, target: p.Target, listeners: p.Listeners}
	err := port.check()
	for _, fd := range p.Listeners {
		if err == nil {
			err = port.prepare(fd)
		}
	}
	if err == nil {
		err = r.take(port)
	}
	if err != nil {
		closeAll(p.Listeners)
		return nil, err
	}
	for _, fd := range p.Listeners {
		if err := r.listen(port, fd); err != nil {
			port.Close()
			return nil, err
		}
	}
	return port, nil
}

// take makes the port one of the relay's.
func (r *Relay) take(port *Port) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ports == nil {
		return ErrClosed
	}
	r.ports[port] = true
	port.crowd = r.crowdOf(port)
	for i, family := range []int{unix.AF_INET, unix.AF_INET6} {
		key := stockKey{port.target.Sockets, family, port.kind}
		if r.stocks[key] == nil {
			r.stocks[key] = newStock(key, r.times.service)
		}
		r.stocks[key].users++
		port.stocks[i] = r.stocks[key]
	}
	return nil
}

// crowdOf finds the crowd that a new port joins. r.mu is held.
func (r *Relay) crowdOf(port *Port) *crowd {
	key := crowdKey{port.target.Sockets, port.kind}
	if r.crowds[key] == nil {
		limit := r.limitOf(port.kind)
		r.crowds[key] = &crowd{places: limit.places, pod: key.pod, clients: map[netip.Addr]int{}}
	}
	r.crowds[key].ports++
	return r.crowds[key]
}

// leave takes a port out of its crowd, when all its clients are gone. r.mu is held.
func (r *Relay) leave(port *Port) {
	c := port.crowd
	if c.ports--; c.ports == 0 {
		r.limitOf(port.kind).refused += c.refused
		c.places.Forget(c.pod)
		delete(r.crowds, crowdKey{c.pod, port.kind})
	}
}

func (r *Relay) limitOf(kind int) *limit {
	return r.limits[slices.IndexFunc(r.limits, func(l *limit) bool { return l.kind == kind })]
}

// listen hands a listener to the loops: every loop accepts TCP connections, one receives a UDP socket's datagrams.
func (r *Relay) listen(port *Port, fd int) error {
	if port.kind == unix.SOCK_DGRAM {
		r.mu.Lock()
		l := r.loops[r.next%len(r.loops)]
		r.next++
		r.mu.Unlock()
		return l.do(func() error { return l.receive(port, fd) })
	}
	for _, l := range r.loops {
		if err := l.do(func() error { return l.accept(port, fd) }); err != nil {
			return err
		}
	}
	return nil
}

// Close closes all ports and ends the relay's threads.
func (r *Relay) Close() error {
	r.publishing.Lock()
	defer r.publishing.Unlock()
	r.mu.Lock()
	ports := r.ports
	r.ports = nil
	r.mu.Unlock()
	for port := range ports {
		port.end()
	}
	for _, l := range r.loops {
		l.post(func() { l.over = true })
	}
	r.running.Wait()
	return nil
}

// released lets those accept who had stopped: a place is free, and the shares of all have grown.
func (r *Relay) released() {
	if r.starved.CompareAndSwap(true, false) {
		for _, l := range r.loops {
			l.post(l.resume)
		}
	}
}
