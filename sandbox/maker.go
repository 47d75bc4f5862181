package sandbox

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/doctor"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/seccomp"
)

// maker is an executor in a pod's user and network namespaces: it makes the sockets there, and sets the
// network up. It has the two capabilities over that network that this takes, and no others.
type maker struct{ *nsenter.Maker }

// makerRules are all that a maker can do once a helper has it: make sockets of the two kinds that ports take, and pass
// them out over the one connection that it has. It reads, writes and opens nothing else.
func makerRules() []seccomp.Rule {
	is, but, only := seccomp.Is, seccomp.But, seccomp.Only
	option := func(level, option uint32) seccomp.Rule {
		return seccomp.Rule{Call: unix.SYS_SETSOCKOPT, Where: []seccomp.Check{is(1, level), is(2, option)}}
	}
	rule := func(call uint32, where ...seccomp.Check) seccomp.Rule { return seccomp.Rule{Call: call, Where: where} }
	return append([]seccomp.Rule{
		rule(unix.SYS_READ, is(0, nsenter.PlanFD)), rule(unix.SYS_SENDTO, is(0, nsenter.PlanFD)), rule(unix.SYS_SENDMSG, is(0, nsenter.PlanFD)),
		rule(unix.SYS_MMAP, only(2, unix.PROT_READ|unix.PROT_WRITE)), // a plan
		rule(unix.SYS_SOCKET, is(0, unix.AF_INET, unix.AF_INET6), but(1, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.SOCK_STREAM, unix.SOCK_DGRAM), is(2, 0)),
		option(unix.SOL_IP, unix.IP_TRANSPARENT), option(unix.SOL_IPV6, unix.IPV6_TRANSPARENT), option(unix.SOL_SOCKET, unix.SO_MARK),
	}, seccomp.Calls(unix.SYS_MUNMAP, unix.SYS_DUP3, unix.SYS_CLOSE_RANGE, unix.SYS_EXIT_GROUP, unix.SYS_RT_SIGRETURN, unix.SYS_RESTART_SYSCALL)...)
}

// confine leaves a maker no other calls, before it is given away: the helper reads what hostile pods send, and whoever
// takes it over has its makers, too. seccomp(2); no_new_privs is set.
func (m *maker) confine() error {
	b := &plan.Builder{}
	filter := seccomp.Bytes(seccomp.Assemble(makerRules()))
	b.Call(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, nsenter.Words{len(filter) / 8, filter}, 0, 0)
	_, err := m.do(b)
	return err
}

// startMaker leads an executor into namespaces of the process behind a pidfd. keep are the capabilities that
// it needs there.
func startMaker(pidfd *os.File, flags int, keep ...capability.Cap) (*maker, error) {
	executor, err := startHand(pidfd)
	if err != nil {
		return nil, err
	}
	m := &maker{executor.Maker()}
	b := plan.Builder{}
	notDumpable := func() { b.Call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
	notDumpable() // a pod with the host's pid namespace could look into it
	if flags != 0 {
		b.Call(unix.SYS_SETNS, nsenter.EnterFD, flags)
		notDumpable()
	}
	b.Call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if os.Geteuid() == 0 || flags&unix.CLONE_NEWUSER != 0 {
		b.Call(unix.SYS_CAPSET, plan.CapabilityHeader(), plan.CapabilityData(keep, keep, nil))
	}
	b.Call(unix.SYS_CHDIR, "/")
	b.Call(unix.SYS_PRCTL, unix.PR_SET_NAME, "podsh-maker")
	if _, err := m.Make(b.Steps.Calls()); err != nil {
		m.Close()
		return nil, fmt.Errorf("enter the pod's network: %w", nameFailed(&b, err))
	}
	return m, nil
}

// forNetwork are the capabilities that setting a network up takes: over the network, and to listen below 1024.
var forNetwork = []capability.Cap{capability.CAP_NET_ADMIN, capability.CAP_NET_RAW, capability.CAP_NET_BIND_SERVICE}

// startHand starts an executor in the host's namespaces, with more descriptors for it.
func startHand(extra ...*os.File) (*nsenter.Executor, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return nsenter.Start("/proc/self/exe", null, extra, &syscall.SysProcAttr{Setsid: true})
}

// nameFailed names the call that failed.
func nameFailed(b *plan.Builder, err error) error {
	var failed *nsenter.CallError
	if errors.As(err, &failed) {
		if step, _, ok := b.Steps.At(failed.Place); ok {
			name := plan.CallName(step.Call)
			return fault.WithHints(fmt.Errorf("%s: %w", name, failed.Errno), doctor.HintsFor(plan.CallKey(step.Call), failed.Errno))
		}
	}
	return err
}

// do performs calls, and names the one that failed.
func (m *maker) do(b *plan.Builder, pass ...nsenter.Result) ([]int, error) {
	fds, err := m.Make(b.Steps.Calls(), pass...)
	return fds, nameFailed(b, err)
}

// request sends requests to the kernel's network side, and fails with what it answers.
func (m *maker) request(what string, requests ...[]byte) error {
	b := &plan.Builder{}
	b.Netlink(requests...)
	if _, err := m.Make(b.Steps.Calls()); err != nil {
		var failed *nsenter.CallError
		if errors.As(err, &failed) {
			return fmt.Errorf("%s: %w", what, failed.Errno)
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// setSysctl writes a setting of the network that the maker is in: /proc/sys/net shows each process its own.
func (m *maker) setSysctl(key, value string) error {
	b := &plan.Builder{}
	fd := b.Call(unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/sys/"+key, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	b.Call(unix.SYS_WRITE, fd, value, len(value))
	b.Call(unix.SYS_CLOSE, fd)
	if _, err := m.do(b); err != nil {
		return fmt.Errorf("set %s: %w", strings.ReplaceAll(key, "/", "."), err)
	}
	return nil
}

// giveAddress gives a pod without any other an address of its own, on its loopback interface: not every
// kernel has dummy ones.
func (m *maker) giveAddress(ipv6 bool) ([]netip.Addr, error) {
	own := []netip.Addr{network.OwnAddress4.Addr()}
	requests := [][]byte{network.SetLink(network.Loopback, 65536), network.AddAddress(network.Loopback, netip.PrefixFrom(own[0], 32))}
	if ipv6 {
		ip := network.OwnAddress6.Addr()
		own = append(own, ip)
		requests = append(requests, network.AddAddress(network.Loopback, netip.PrefixFrom(ip, 128)))
	}
	return own, m.request("address on lo", requests...)
}

// keepReplies makes what answers a client of a published port stay in the pod.
func (m *maker) keepReplies(own []netip.Addr) error {
	if err := m.setSysctl("net/ipv4/tcp_fwmark_accept", "1"); err != nil { // connections
		return err
	}
	for _, ip := range firstOfEach(own) {
		reflect := "net/ipv4/fwmark_reflect" // resets, and ICMP: that a port is closed must be told, too
		if ip.Is6() {
			reflect = "net/ipv6/fwmark_reflect"
		}
		if err := m.setSysctl(reflect, "1"); err != nil {
			return err
		}
		if err := m.request("route for answers", network.AddReplyRoute(ip)); err != nil {
			return err
		}
		if err := m.request("rule for answers", network.AddReplyRule(ip)); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// firstOfEach is one address of each family.
func firstOfEach(ips []netip.Addr) []netip.Addr {
	var first []netip.Addr
	seen := map[bool]bool{}
	for _, ip := range ips {
		if !seen[ip.Is4()] {
			first = append(first, ip)
			seen[ip.Is4()] = true
		}
	}
	return first
}

// keepPortReplies does so for what UDP ports send.
//
// What they send to pods on the same network takes the usual way: peers know the pod by its own address.
func (m *maker) keepPortReplies(state *pod.NetState, ports []network.Port) error {
	own := state.Addresses
	if slices.ContainsFunc(ports, func(p network.Port) bool { return p.Protocol == "udp" }) {
		for i := range state.Attachments {
			for _, address := range state.Attachments[i].Addresses {
				if err := m.request("rule for peers", network.AddPeerRule(address.Masked())); err != nil && !errors.Is(err, unix.EEXIST) {
					return err
				}
			}
		}
	}
	for _, ip := range firstOfEach(own) {
		for _, port := range ports {
			if port.Protocol != "udp" {
				continue
			}
			if err := m.request("rule for answers", network.AddPortRule(ip, port.PodPort)); err != nil && !errors.Is(err, unix.EEXIST) {
				return err
			}
		}
	}
	return nil
}
