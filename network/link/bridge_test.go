package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/podsh/podsh/network/testns"
	"golang.org/x/sys/unix"
)

func TestNetworksAreApart(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	p := place(t)
	one, two := newPod(t, "one", "eth0"), newPod(t, "two", "eth0")
	a, b := attach(t, p, blue, one), attach(t, p, red, two)
	prohibited(t, []attempt{
		{one, b.Addresses[0].Addr()}, {two, a.Addresses[0].Addr()},
		{one, b.Addresses[1].Addr()}, {two, a.Addresses[1].Addr()},
	})
	// A pod on both reaches both; and the others stay apart.
	both := one
	both.Interface, both.Default = "eth1", false
	attach(t, p, red, both)
	for i := range red.Subnets {
		if _, err := reach(t, one.NetNS, two.NetNS, b.Addresses[i].Addr()); err != nil {
			t.Error(err)
		}
	}
}

type attempt struct {
	from Pod
	to   netip.Addr
}

// prohibited makes attempts at once: of TCP's first SYN an ICMP error is not believed, only of the second.
func prohibited(t *testing.T, attempts []attempt) {
	t.Helper()
	var wait sync.WaitGroup
	for _, attempt := range attempts {
		wait.Go(func() {
			testns.In(t, attempt.from.NetNS, func() {
				// RFC 1812 section 5.2.7.1 and RFC 4443 section 3.1: administratively prohibited
				if _, err := dial(netip.AddrPortFrom(attempt.to, 9).String()); !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) {
					t.Errorf("%s to %s: %v", attempt.from.ID, attempt.to, err)
				}
			})
		})
	}
	wait.Wait()
}

// uplink makes a namespace that stands for the world outside, and a link to it.
func uplink(t *testing.T) *os.File {
	t.Helper()
	outside := testns.NewNetwork(t)
	name := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), outside.Fd())
	testns.Run(t, "ip", "link", "add", "up0", "type", "veth", "peer", "name", "out0")
	testns.Run(t, "ip", "link", "set", "out0", "netns", name)
	quickly(t, "up0")
	testns.Run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "up0")
	testns.Run(t, "ip", "addr", "add", "2001:db8::1/64", "dev", "up0", "nodad")
	testns.Run(t, "ip", "link", "set", "up0", "up")
	testns.In(t, outside, func() {
		quickly(t, "out0")
		testns.Run(t, "ip", "addr", "add", "192.0.2.2/24", "dev", "out0")
		testns.Run(t, "ip", "addr", "add", "2001:db8::2/64", "dev", "out0", "nodad")
		testns.Run(t, "ip", "link", "set", "out0", "up")
	})
	return outside
}

// quickly lets a link's addresses be used at once.
func quickly(t *testing.T, link string) {
	t.Helper()
	if err := linkSysctls(link, true); err != nil {
		t.Error(err)
	}
	if err := setSysctl("ipv6/conf/"+link+"/accept_ra", "1"); err != nil {
		t.Error(err)
	}
}

var (
	outsideAddresses = []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}
	hostAddresses    = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
)

func TestOutside(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	p := place(t)
	outside := uplink(t)
	testns.In(t, outside, func() { // it has routes to the pods: no address need be translated
		testns.Run(t, "ip", "route", "add", "10.89.0.0/16", "via", "192.0.2.1")
		testns.Run(t, "ip", "-6", "route", "add", "fd00:89::/32", "via", "2001:db8::1")
	})
	one, shut := newPod(t, "one", "eth0"), newPod(t, "shut", "eth0")
	a, b := attach(t, p, blue, one), attach(t, p, dark, shut)
	if b.Default {
		t.Error("a pod on an internal network has a default route")
	}
	for i, address := range outsideAddresses {
		if seen, err := reach(t, one.NetNS, outside, address); err != nil || seen != a.Addresses[i].Addr() {
			t.Errorf("out: %v, %v", seen, err)
		}
		if _, err := reach(t, outside, one.NetNS, a.Addresses[i].Addr()); err != nil {
			t.Errorf("in: %v", err)
		}
		if _, err := reach(t, shut.NetNS, outside, address); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("out of an internal network: %v", err)
		}
		if _, err := reach(t, shut.NetNS, standing(t), b.Gateways[i]); err != nil {
			t.Errorf("the gateway of an internal network: %v", err)
		}
	}
	// A pod that gives itself a route gets no further, nor does anyone get in.
	testns.In(t, shut.NetNS, func() {
		testns.Run(t, "ip", "route", "add", "default", "via", b.Gateways[0].String())
		testns.Run(t, "ip", "-6", "route", "add", "default", "via", b.Gateways[1].String())
	})
	prohibited(t, []attempt{{shut, outsideAddresses[0]}, {shut, outsideAddresses[1]}})
	for _, address := range b.Addresses {
		testns.In(t, outside, func() {
			conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(address.Addr(), 9).String(), 300*time.Millisecond)
			if err == nil || errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("into an internal network: %v, %v", conn, err)
			}
		})
	}
}

func TestMasquerade(t *testing.T) {
	for _, tool := range []string{"nft", "iptables"} {
		t.Run(tool, func(t *testing.T) {
			if !testns.Inside(t) {
				return
			}
			p := place(t)
			p.Masquerade = true
			outside := uplink(t)
			one, two := newPod(t, "one", "eth0"), newPod(t, "two", "eth0")
			all := func() {}
			if tool == "iptables" {
				all = onlyPrograms(t, "iptables", "ip6tables")
			}
			a := attach(t, p, blue, one)
			b := attach(t, p, blue, two)
			for i, address := range outsideAddresses {
				if seen, err := reach(t, one.NetNS, outside, address); err != nil || seen != hostAddresses[i] {
					t.Errorf("outside sees %v, %v", seen, err)
				}
				if seen, err := reach(t, one.NetNS, two.NetNS, b.Addresses[i].Addr()); err != nil || seen != a.Addresses[i].Addr() {
					t.Errorf("the other pod sees %v, %v", seen, err)
				}
			}
			for _, pod := range []Pod{one, two} {
				if err := p.Detach(t.Context(), blue, pod, nil); err != nil {
					t.Error(err)
				}
			}
			if err := p.Remove(t.Context(), blue); err != nil {
				t.Error(err)
			}
			all()
			nothingLeft(t, p)
		})
	}
}

// onlyPrograms leaves nothing to be found but some of the machine's programs, until all is called.
func onlyPrograms(t *testing.T, names ...string) (all func()) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		if err := os.Symlink(program(name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(dir, "lock"))
	path, others := os.Getenv("PATH"), sbin
	t.Setenv("PATH", dir)
	sbin = nil
	return func() {
		t.Setenv("PATH", path)
		sbin = others
	}
}

func TestNoNAT(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	p := place(t)
	p.Masquerade = true
	all := onlyPrograms(t)
	pod := Pod{ID: "one", NetNS: testns.NewNetwork(t), Interface: "eth0"}
	if _, err := p.Attach(t.Context(), blue, pod); !errors.Is(err, ErrNoNAT) {
		t.Error(err)
	}
	if err := p.Remove(t.Context(), blue); err != nil {
		t.Error(err)
	}
	all()
	nothingLeft(t, p)
}

// Others' routers are listened to still, though the machine forwards.
func TestForwarding(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	p := place(t)
	uplink(t)
	for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} { // as the machine has it, else
		if err := setSysctl(key, "0"); err != nil {
			t.Fatal(err)
		}
	}
	attach(t, p, dark, newPod(t, "dark", "eth0"))
	if getSysctl("ipv4/ip_forward") == "1" || getSysctl("ipv6/conf/all/forwarding") == "1" {
		t.Error("an internal network turns forwarding on")
	}
	pod := newPod(t, "one", "eth0")
	attach(t, p, blue, pod)
	testns.In(t, pod.NetNS, func() {
		if got := getSysctl("ipv6/conf/eth0/accept_ra"); got != "0" {
			t.Errorf("the pod's accept_ra is %q", got)
		}
	})
	for key, want := range map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1",
		"ipv6/conf/up0/accept_ra": "2", "ipv6/conf/podsh1/accept_ra": "0"} {
		if got := getSysctl(key); got != want {
			t.Errorf("%s is %q", key, got)
		}
	}
}
