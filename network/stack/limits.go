package stack

import (
	"time"

	"github.com/podsh/podsh/network/share"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// sizes are how much of everything there may be, before it is divided.
type sizes struct {
	dials       int   // TCP connections that are being made, by the host or by the pod
	connections int   // TCP connections in all
	tiers       []int // so many of them have the largest buffers, so many the next
	flows       int   // of UDP and ping
	peers       int   // addresses that one flow of UDP is remembered to have sent to
	queries     int   // of DNS, at the same time: more than Config.DNS lets wait, which has shares for them
}

// times are how long things may take.
type times struct {
	dial     time.Duration // for the host's connect(2)
	idle     time.Duration // after which a connection's ends are asked whether they are there: tcp(7), TCP_KEEPIDLE
	interval time.Duration // between such questions, and before the first where the pod has ended its direction
	probes   int           // so many unanswered ones of the kernel's end a connection; of the pod, which is near, 4 do
	retries  int           // how often what a pod does not acknowledge is sent anew
	orphan   time.Duration // how long what a pod that is gone has left may wait for the host's side
	closing  time.Duration // how long after both sides have ended
	asked    time.Duration // a flow that has no reply yet
	replied  time.Duration // a flow that has
	verdict  time.Duration // how long policy's word on an address is good for a flow
	query    time.Duration // for Config.DNS, and between queries of one TCP connection
}

// A flow's times are RFC 4787's, 4.3: at least two minutes, better five. Who acknowledges nothing is given up as Linux does
// it, tcp(7): tcp_retries2, after 15 minutes. So is an orphan: its probes get rarer until two minutes lie between them.
var defaultTimes = times{
	dial: 20 * time.Second, idle: time.Minute, interval: 15 * time.Second, probes: 9,
	retries: 15, orphan: 4 * time.Minute, closing: time.Minute,
	asked: 2 * time.Minute, replied: 5 * time.Minute, verdict: time.Second, query: 15 * time.Second,
}

// The most of everything, however many descriptors there are. What waits for a slow reader fills the buffers; so with many
// connections they are small, and pods that open all they may and read nothing make us hold 1.2 GB at worst.
const (
	mostConnections = 16384
	mostFlows       = 8192
	mostDials       = 4096
)

// defaultDescriptors is what Linux lets a process have if nobody says otherwise.
const defaultDescriptors = 1024

// sizesFor divides descriptors: a connection and a flow take one each.
func sizesFor(descriptors int) sizes {
	connections := min(mostConnections, descriptors*3/4)
	return sizes{
		dials: min(mostDials, connections/2), connections: connections, tiers: []int{256, 3840},
		flows: min(mostFlows, descriptors/4), peers: 512, queries: 2048,
	}
}

// buffers are those of a connection in each direction, bytes, by its tier.
var buffers = []int64{512 << 10, 64 << 10, 16 << 10}

// largeBuffer is the largest of them, pieceBuffer what is left of one whose sender sends in small pieces.
const (
	largeBuffer = 512 << 10
	pieceBuffer = 16 << 10
)

// tier is a number of connections whose buffers are equally large.
type tier struct {
	limit     *share.Limit[string]
	buffer    int64
	forwarder *tcp.Forwarder
}

// limits bound what pods can make us hold. Each has a share of each.
type limits struct {
	times
	dials, connections, flows *share.Limit[string]
	tiers                     []*tier
	peers, queries            int
}

// newLimits divides sizes among many pods, or gives one all.
func newLimits(sizes sizes, times times, shared bool) limits {
	limit := share.Whole[string]
	if shared {
		limit = share.New[string]
	}
	l := limits{times: times, peers: sizes.peers, queries: sizes.queries,
		dials: limit(sizes.dials), connections: limit(sizes.connections), flows: limit(sizes.flows)}
	for i, buffer := range buffers {
		most := share.Whole[string](sizes.dials + sizes.connections) // the last has place for all that may be there
		if i < len(sizes.tiers) {
			most = limit(sizes.tiers[i])
		}
		l.tiers = append(l.tiers, &tier{limit: most, buffer: buffer})
	}
	return l
}

// tier takes a place with the largest buffers that are left for owner.
func (l *limits) tier(owner string) *tier {
	for _, t := range l.tiers[:len(l.tiers)-1] {
		if t.limit.Take(owner) {
			return t
		}
	}
	last := l.tiers[len(l.tiers)-1]
	last.limit.Take(owner)
	return last
}

// forget forgets what an owner was refused.
func (l *limits) forget(owner string) {
	for _, limit := range []*share.Limit[string]{l.dials, l.connections, l.flows} {
		limit.Forget(owner)
	}
	for _, t := range l.tiers {
		t.limit.Forget(owner)
	}
}

// Use is how a limit is used: by one pod, and by all.
type Use struct {
	Name string
	Own  share.Use
	All  share.Use
}

// Uses says how the limits are used; owner is whose own use is wanted.
func (s *Stack) Uses(owner string) []Use {
	l := &s.limits
	return []Use{
		{"connections", l.connections.Of(owner), l.connections.All()},
		{"dials", l.dials.Of(owner), l.dials.All()},
		{"flows", l.flows.Of(owner), l.flows.All()},
	}
}
