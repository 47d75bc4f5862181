package helper

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/network/names"
	"github.com/podsh/podsh/network/relay"
	"github.com/podsh/podsh/network/stack"
)

// member is a pod that is served.
type member struct {
	control.Member
	holder  *os.File // pidfd of its holder
	sockets *sockets
	ports   []published

	followed *followed // its resolv.conf; nil: it stays as it is
}

type published struct {
	port  network.Port
	relay *relay.Port
}

// serveMember begins to serve a pod.
func (h *helper) serveMember(request *control.Request, files []*os.File) (*control.Answer, error) {
	if len(files) != 2 || request.Member == nil {
		control.Close(files)
		return nil, errors.New("no pod to serve")
	}
	if h.members[request.Member.ID] != nil {
		h.drop(request.Member.ID)
	}
	m := &member{Member: *request.Member, holder: files[0], sockets: newSockets(files[1])}
	if err := h.watch(m); err != nil {
		m.close()
		return nil, err
	}
	h.members[m.ID] = m
	h.led = h.led || m.Lead
	h.learn(m)
	return &control.Answer{}, nil
}

// known is the pod as those who ask for its name know it. On no network it is known to nobody, but asks.
func (m *member) known() names.Member {
	known := names.Member{ID: m.ID, Names: m.Names, Aliases: m.Aliases, Networks: map[string][]netip.Addr{}, DNS: m.DNS,
		Internal: m.Internal, Hosts: m.Hosts}
	for name, addresses := range m.Networks {
		known.Networks[name] = addresses
	}
	if len(m.Networks) == 0 {
		known.Networks[""] = m.Addresses
	}
	return known
}

// watch waits for the end of the pod, pidfd_open(2).
func (h *helper) watch(m *member) error {
	fd := int(m.holder.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("pidfd: %w", err)
	}
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("copy a pidfd: %w", err)
	}
	pollable := os.NewFile(uintptr(copied), "pidfd")
	raw, err := pollable.SyscallConn()
	if err != nil {
		pollable.Close()
		return fmt.Errorf("pidfd: %w", err)
	}
	go func() {
		defer pollable.Close()
		err := raw.Read(func(fd uintptr) bool {
			events := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(events, 0)
			return err == nil && n == 1
		})
		h.lock.Lock()
		defer h.lock.Unlock()
		if h.members[m.ID] == m { // else it was forgotten
			h.drop(m.ID)
			if m.Lead || err != nil || !h.led && len(h.members) == 0 {
				h.finish()
			}
		}
	}()
	return nil
}

// updateMember takes in what has changed about a pod.
func (h *helper) updateMember(request *control.Request, files []*os.File) (*control.Answer, error) {
	control.Close(files)
	if request.Member == nil {
		return nil, errors.New("nothing has changed")
	}
	m, err := h.member(request.Member.ID)
	if err != nil {
		return nil, err
	}
	lead := m.Lead
	m.Member = *request.Member
	m.Lead = lead
	h.learn(m)
	for _, p := range m.ports {
		err = errors.Join(err, p.relay.Move(firstOfEach(m.Addresses)))
	}
	return &control.Answer{}, err
}

func (h *helper) member(id string) (*member, error) {
	if m := h.members[id]; m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("pod %s has ended", id)
}

// forget ends what is done for a pod.
func (h *helper) forget(request *control.Request, files []*os.File) (*control.Answer, error) {
	control.Close(files)
	if m := h.members[request.Pod]; m != nil {
		h.drop(m.ID)
		if m.Lead {
			h.finish()
		}
	}
	return &control.Answer{}, nil
}

func (h *helper) drop(id string) {
	m := h.members[id]
	delete(h.members, id)
	h.names.Remove(id)
	h.allow()
	_ = h.stowAll() // fewer than before
	if h.stack != nil {
		h.stack.Forget(id)
	}
	m.close()
}

// learn takes in who a pod is.
func (h *helper) learn(m *member) {
	h.names.Set(m.known())
	h.allow()
}

// rights are what the way out asks about a pod. They are looked at for every connection, without a lock.
type rights struct {
	pod       string
	internal  bool // it goes nowhere
	hostPorts *control.HostPorts
}

// allow writes the rights of all pods down, by their addresses.
func (h *helper) allow() {
	all := map[netip.Addr]rights{}
	for _, m := range h.members {
		for _, ip := range m.Addresses {
			if _, taken := all[ip]; !taken || m.Lead { // an address that is the same in every pod is its leader's
				all[ip] = rights{m.ID, m.Internal, m.HostPorts}
			}
		}
	}
	h.rights.Store(&all)
}

func (h *helper) rightsOf(ip netip.Addr) (rights, bool) {
	r, ok := (*h.rights.Load())[ip]
	return r, ok
}

func (m *member) close() {
	for _, p := range m.ports {
		_ = p.relay.Close() // its sockets are gone either way
	}
	m.sockets.close()
	m.holder.Close()
	if m.followed != nil {
		m.followed.file.Close()
	}
}

// publish begins to serve ports of a pod: all, or none.
func (h *helper) publish(request *control.Request, files []*os.File) (answer *control.Answer, err error) {
	left := files
	defer func() { control.Close(left) }()
	m, err := h.member(request.Pod)
	if err != nil {
		return nil, err
	}
	if len(request.Sockets) != len(request.Ports) {
		return nil, errors.New("ports without sockets")
	}
	if err = m.sockets.poll(); err != nil {
		return nil, err
	}
	if h.relay == nil {
		if h.relay, err = relay.New(h.limits()); err != nil {
			return nil, err
		}
	}
	var added []published
	for i, port := range request.Ports {
		n := request.Sockets[i]
		if n < 0 || n > len(left) {
			err = errors.New("ports without sockets")
			break
		}
		var fds []int
		for _, file := range left[:n] {
			fd, derr := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if derr != nil {
				err = fmt.Errorf("copy a socket: %w", derr)
				break
			}
			fds = append(fds, fd)
		}
		control.Close(left[:n])
		left = left[n:]
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
			break
		}
		var p *relay.Port
		p, err = h.relay.Publish(relay.Published{Listeners: fds, Target: relay.Target{
			Sockets: m.sockets, Addresses: firstOfEach(m.Addresses), Port: port.PodPort, Bound: m.udpBound}})
		if err != nil {
			break
		}
		added = append(added, published{port, p})
	}
	if err != nil {
		for _, p := range added {
			_ = p.relay.Close() // what was begun ends
		}
		return nil, err
	}
	m.ports = append(m.ports, added...)
	return &control.Answer{}, h.stowAll()
}

// udpBound says whether a UDP port is bound in the pod. What its holder's network has is for all to see, proc_net(5).
func (m *member) udpBound(port uint16) (bool, error) {
	pid, err := pidOf(m.holder)
	if err != nil {
		return false, err
	}
	return relay.UDPBound(fmt.Sprintf("/proc/%d/net", pid), port)
}

// firstOfEach is one address of each family.
func firstOfEach(ips []netip.Addr) []netip.Addr {
	var first []netip.Addr
	for _, ip := range ips {
		if !slices.ContainsFunc(first, func(other netip.Addr) bool { return other.Is4() == ip.Is4() }) {
			first = append(first, ip)
		}
	}
	return first
}

// unpublish ends ports of a pod.
func (h *helper) unpublish(request *control.Request, files []*os.File) (*control.Answer, error) {
	control.Close(files)
	m, err := h.member(request.Pod)
	if err != nil {
		return nil, err
	}
	for _, port := range request.Ports {
		i := slices.IndexFunc(m.ports, func(p published) bool { return samePort(p.port, port) })
		if i < 0 { // one that a helper started anew could not take up again
			continue
		}
		cerr := m.ports[i].relay.Close()
		m.ports = slices.Delete(m.ports, i, i+1)
		if cerr != nil {
			return nil, cerr
		}
	}
	return &control.Answer{}, h.stowAll()
}

// wayOut carries what leaves a pod: by our own stack, or by another program.
func (h *helper) wayOut(request *control.Request, files []*os.File) (*control.Answer, error) {
	m, err := h.member(request.Pod)
	if err == nil && request.Way == nil {
		err = errors.New("no way out is named")
	}
	if err != nil {
		control.Close(files)
		return nil, err
	}
	h.link.Store(&request.Way.Link)
	if request.Way.Program != "" {
		control.Close(files)
		if h.program, err = startProgram(request.Way, m); err == nil {
			go h.program.end(h.finish) // without it there is nothing to help: the next podsh starts both anew
			err = confine(h.program.rules()...)
		}
		return &control.Answer{}, err
	}
	if len(files) != 1 {
		control.Close(files)
		return nil, errors.New("no tun device")
	}
	if h.stack != nil {
		_ = h.stack.Close() // another one takes its place
	}
	h.stack, err = stack.New(stack.Config{
		Tun: files[0], MTU: uint32(request.Way.MTU), Gateway: request.Way.Link.Gateways,
		Resolver: request.Way.Link.Resolvers, DNS: h.names.Answer, HostAccess: h.hostAccess, Blocked: h.blocked,
		Owner: h.owner, Shared: request.Way.Shared, Descriptors: h.files / outboundPart,
	})
	return &control.Answer{}, err
}

// outboundPart is which part of the descriptors the way out may have. Published ports have most of the others.
const outboundPart = 4

// owner is the pod that an address is of.
func (h *helper) owner(from netip.Addr) string {
	r, _ := h.rightsOf(from)
	return r.pod
}

// hostAccess says whether a pod may reach a port of the host's; 0 is ping.
func (h *helper) hostAccess(from netip.Addr, port uint16) bool {
	r, _ := h.rightsOf(from)
	return r.hostPorts.Reaches(port)
}

// hostAddresses are where a pod reaches the host, if it may.
func (h *helper) hostAddresses(from netip.Addr) []netip.Addr {
	if r, _ := h.rightsOf(from); r.hostPorts != nil {
		if link := h.link.Load(); link != nil {
			return link.Gateways
		}
	}
	return nil
}

// blocked: what comes from no pod that is known, or from one on internal networks alone, goes nowhere.
func (h *helper) blocked(from, _ netip.Addr) bool {
	r, known := h.rightsOf(from)
	return !known || r.internal
}

// resolve answers names on sockets that stand where pods reach them.
func (h *helper) resolve(request *control.Request, files []*os.File) (*control.Answer, error) {
	defer control.Close(files)
	for _, file := range files {
		kind, err := unix.GetsockoptInt(int(file.Fd()), unix.SOL_SOCKET, unix.SO_TYPE)
		if err != nil {
			return nil, fmt.Errorf("SO_TYPE: %w", err)
		}
		if kind == unix.SOCK_DGRAM {
			conn, err := net.FilePacketConn(file)
			if err != nil {
				return nil, err
			}
			go h.names.ServeUDP(conn)
			continue
		}
		listener, err := net.FileListener(file)
		if err != nil {
			return nil, err
		}
		go h.names.ServeTCP(listener)
	}
	h.resolves = append(h.resolves, request.Address)
	return &control.Answer{}, nil
}
