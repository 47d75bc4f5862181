package stack

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// connection is a pod's TCP connection and the host's that continues it. It is over when both directions have come to
// their end; when one of them fails; or when one side is found to be gone, whichever direction waits for it:
//
//	the pod's     the endpoint hears a RST, or none of its keepalive probes is answered: podGone
//	the host's    the kernel hears a RST, or its own probes are not answered: up or down fails, or hostGone, which
//	              looks on when the host's side has ended its direction and there is nothing more to read
//
// A direction that has ended, and another that goes on, is nothing of the kind, however long it takes: then both sides
// answer the probes.
type connection struct {
	stack   *Stack
	attempt *attempt // that it came from
	host    *net.TCPConn
	pod     tcpip.Endpoint
	events  waiter.Queue // of pod
	once    sync.Once
	pieces  int // small reads in a row

	sent    atomic.Bool // up is at its end: the host's side has all that the pod had to say
	fetched atomic.Bool // down is at its end
	orphan  atomic.Bool // the pod's side is gone, and what it sent is on its way
}

// lastWords is how long the host's side has to take what a pod sent right before it reset the connection.
const lastWords = time.Second

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
	c.attempt.own(pod.(*tcp.Endpoint))
	s := c.stack
	pod.SocketOptions().SetSendBufferSize(c.attempt.tier.buffer, true)
	interval := tcpip.KeepaliveIntervalOption(s.limits.interval)
	pod.SetSockOpt(&interval)
	pod.SetSockOptInt(tcpip.KeepaliveCountOption, 4)
	c.probeAfter(s.limits.idle)
	pod.SocketOptions().SetKeepAlive(true)

	s.mu.Lock()
	closed := s.closed || c.attempt.ctx.Err() != nil
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

// probeAfter says how long nothing must have come from the pod before it is asked whether it is there.
func (c *connection) probeAfter(idle time.Duration) {
	option := tcpip.KeepaliveIdleOption(idle)
	c.pod.SetSockOpt(&option)
}

// run copies both ways until both are at their end, or one fails.
func (c *connection) run() {
	// It runs under locks of the endpoint's.
	gone := waiter.NewFunctionEntry(waiter.EventHUp|waiter.EventErr, func(waiter.EventMask) { go c.podGone() })
	c.events.EventRegister(&gone)
	defer c.events.EventUnregister(&gone)
	c.podGone() // before it was listened to
	up := make(chan error, 1)
	go func() {
		err := c.up()
		if err != nil {
			c.abort()
		} else if c.fetched.Load() {
			c.host.SetReadDeadline(past) // hostGone looks no more
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

// podGone sees to what is left when the pod's side is not there any more.
func (c *connection) podGone() {
	switch state := tcp.EndpointState(c.pod.State()); {
	case state == tcp.StateError && !c.sent.Load():
		c.host.SetWriteDeadline(time.Now().Add(lastWords)) // up learns of it, once it need not wait for the host's side
	case state == tcp.StateError || state == tcp.StateClose:
		// It had ended its direction: the host's side gets all that it sent, and nobody waits for an answer. The kernel
		// gives what is left then the time that an orphan has, tcp(7): tcp_fin_timeout, tcp_orphan_retries.
		c.orphan.Store(true)
		c.patient()
		c.host.SetReadDeadline(past)
	}
}

// patient gives the host's side more time to take what an orphan has left.
func (c *connection) patient() {
	c.host.SetWriteDeadline(time.Now().Add(c.stack.limits.orphan))
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

// soon makes the host's kernel forget the connection as soon as the other side has all there is: the pod's kernel has
// waited for an answer already, as long as it does, tcp(7): TCP_LINGER2. Without it that takes a minute more.
func (c *connection) soon() {
	if conn, err := c.host.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_LINGER2, 1) })
	}
}

// finish closes both sides and waits until the pod has acknowledged everything: until then its data is here.
func (c *connection) finish() {
	closed, events := waiter.NewChannelEntry(waiter.EventHUp | waiter.EventErr)
	c.events.EventRegister(&closed)
	defer c.events.EventUnregister(&closed)
	c.once.Do(func() {
		if c.orphan.Load() {
			c.soon()
		}
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
