package stack

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// The buffers of a connection in each direction, bytes. What waits for a slow reader fills them; so with many
// connections they are small, and a pod that opens all it may and reads nothing makes us hold 0.8 GB at worst.
const (
	largeBuffer = 512 << 10
	smallBuffer = 64 << 10
	pieceBuffer = 16 << 10
)

// tcpHandler accepts what policy allows and the host can connect to.
func (s *Stack) tcpHandler() func(stack.TransportEndpointID, *stack.PacketBuffer) bool {
	large := tcp.NewForwarder(s.netns, largeBuffer, s.limits.dials, s.serve)
	small := tcp.NewForwarder(s.netns, smallBuffer, s.limits.dials, s.serve)
	return func(id stack.TransportEndpointID, packet *stack.PacketBuffer) bool {
		if s.roomy() {
			return large.HandlePacket(id, packet)
		}
		return small.HandlePacket(id, packet)
	}
}

// roomy reports whether a new connection may have large buffers.
func (s *Stack) roomy() bool { return s.held.Load() < int64(s.limits.roomy) }

// connection is a pod's TCP connection and the host's that continues it.
type connection struct {
	stack  *Stack
	host   *net.TCPConn
	pod    tcpip.Endpoint
	events waiter.Queue // of pod
	once   sync.Once
	buffer int64 // towards the pod, at most
	pieces int   // small reads in a row
}

// serve answers one SYN of a pod: it runs on a goroutine of its own.
func (s *Stack) serve(request *tcp.ForwarderRequest) {
	if !s.enter() {
		request.Complete(false)
		return
	}
	defer s.work.Done()
	id := request.ID()
	src := netip.AddrPortFrom(fromStack(id.RemoteAddress), id.RemotePort)
	dst := netip.AddrPortFrom(fromStack(id.LocalAddress), id.LocalPort)
	defer s.held.Add(-1)
	if s.held.Add(1) > int64(s.limits.connections) {
		s.counters.dropped.Add(1)
		request.Complete(true)
		return
	}
	if s.isResolver(dst) {
		s.serveDNS(request, src.Addr())
		return
	}
	destinations, err := s.destinations(src.Addr(), dst)
	if err != nil {
		s.counters.refused.Add(1)
		request.Complete(true)
		return
	}
	host, err := s.dial(destinations)
	if err != nil {
		s.counters.failed.Add(1)
		request.Complete(true)
		return
	}
	c := &connection{stack: s, host: host}
	if c.accept(request) {
		c.run()
	}
}

// dial connects to the first of the destinations that takes the connection.
func (s *Stack) dial(destinations []netip.AddrPort) (host *net.TCPConn, err error) {
	// An end of connection that the host's side never sends must not hold the connection for ever.
	dialer := net.Dialer{Timeout: s.limits.dial, KeepAlive: time.Minute}
	for _, dst := range destinations {
		var conn net.Conn
		if conn, err = dialer.DialContext(s.ctx, "tcp", dst.String()); err == nil {
			return conn.(*net.TCPConn), nil
		}
	}
	return nil, err
}

// accept completes the handshake with the pod.
func (c *connection) accept(request *tcp.ForwarderRequest) bool {
	pod, err := request.CreateEndpoint(&c.events)
	if err != nil {
		request.Complete(false)
		c.reset()
		return false
	}
	request.Complete(false)
	c.pod = pod
	s := c.stack
	if c.buffer = largeBuffer; !s.roomy() {
		c.buffer = smallBuffer
	}
	pod.SocketOptions().SetSendBufferSize(c.buffer, true)
	// A pod that is gone says nothing. Without the first the stack would send to it again for ever.
	silent, idle, interval := tcpip.TCPUserTimeoutOption(s.limits.silent), tcpip.KeepaliveIdleOption(time.Minute), tcpip.KeepaliveIntervalOption(15*time.Second)
	for _, option := range []tcpip.SettableSocketOption{&silent, &idle, &interval} {
		pod.SetSockOpt(option)
	}
	pod.SetSockOptInt(tcpip.KeepaliveCountOption, 4)
	pod.SocketOptions().SetKeepAlive(true)

	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.connections[c] = struct{}{}
	}
	s.mu.Unlock()
	if closed {
		c.abort()
		return false
	}
	s.counters.opened.Add(1)
	return true
}

// run copies both ways until both are at their end, or one fails.
func (c *connection) run() {
	up := make(chan error, 1)
	go func() {
		err := c.up()
		if err != nil {
			c.abort()
		}
		up <- err
	}()
	err := c.down()
	if err != nil {
		c.abort()
	}
	if failed := <-up; failed == nil && err == nil {
		c.finish()
	}
	c.stack.mu.Lock()
	delete(c.stack.connections, c)
	c.stack.mu.Unlock()
}

// abort resets both sides. It may be called from anywhere, again and again.
func (c *connection) abort() {
	c.once.Do(func() {
		c.pod.Abort()
		c.reset()
	})
}

// reset makes the host's side see what the pod's has: RST rather than FIN, socket(7) SO_LINGER.
func (c *connection) reset() {
	c.host.SetLinger(0)
	c.host.Close()
}

// finish closes both sides and waits until the pod has acknowledged everything: until then its data is here.
func (c *connection) finish() {
	closed, events := waiter.NewChannelEntry(waiter.EventHUp | waiter.EventErr)
	c.events.EventRegister(&closed)
	defer c.events.EventUnregister(&closed)
	c.once.Do(func() {
		c.host.Close()
		c.pod.Close()
	})
	switch tcp.EndpointState(c.pod.State()) {
	case tcp.StateTimeWait, tcp.StateClose, tcp.StateError:
		return
	}
	timer := time.NewTimer(c.stack.limits.closing)
	defer timer.Stop()
	select {
	case <-events:
	case <-timer.C:
		c.pod.Abort()
	case <-c.stack.ctx.Done():
	}
}
