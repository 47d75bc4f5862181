package link

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/podsh/podsh/network/testns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestPodsReachEachOther(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	p := place(t)
	one, two := newPod(t, "one", "eth0"), newPod(t, "two", "eth0")
	a, b := attach(t, p, blue, one), attach(t, p, blue, two)
	if got := fmt.Sprintf("%v %v %s %d %v", a.Addresses, a.Gateways, a.MAC, a.MTU, a.Default); got != "[10.89.1.2/24 fd00:89:1::2/64] [10.89.1.1 fd00:89:1::1] 0a:58:0a:59:01:02 1500 true" {
		t.Error(got)
	}
	for i := range blue.Subnets {
		seen, err := reach(t, one.NetNS, two.NetNS, b.Addresses[i].Addr())
		if err != nil || seen != a.Addresses[i].Addr() {
			t.Errorf("%v, %v", seen, err)
		}
		if _, err := reach(t, two.NetNS, standing(t), b.Gateways[i]); err != nil {
			t.Errorf("the gateway: %v", err)
		}
		if seen, err := reach(t, standing(t), two.NetNS, b.Addresses[i].Addr()); err != nil || seen != b.Gateways[i] {
			t.Errorf("from the gateway: %v, %v", seen, err)
		}
	}
	link, err := netlink.LinkByName(blue.Bridge)
	if err != nil {
		t.Fatal(err)
	}
	if at := link.Attrs(); at.Promisc != 0 || at.HardwareAddr.String() != "0a:58:0a:59:01:01" || at.Alias != "podsh network blue" {
		t.Errorf("%+v", at)
	}
	if shown := testns.Run(t, "ip", "-d", "link", "show", blue.Bridge); !strings.Contains(shown, "stp_state 0") {
		t.Errorf("spanning tree: %s", shown)
	}
}

func TestDetach(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	p := place(t)
	for _, gone := range []bool{false, true} {
		for _, known := range []bool{false, true} {
			pod := newPod(t, "one", "eth0")
			a := attach(t, p, blue, pod)
			var inUse *InUseError
			if err := p.Remove(t.Context(), blue); !errors.As(err, &inUse) || !slices.Equal(inUse.Pods, []string{"one"}) {
				t.Errorf("remove: %v", err)
			}
			if leased, err := p.Leases(blue); err != nil || len(leased) != 2 || leased[a.Addresses[0].Addr()] != "one" {
				t.Errorf("%v, %v", leased, err)
			}
			if gone {
				pod.NetNS.Close()
				pod.NetNS = nil
			}
			if !known {
				a = nil
			}
			for range 2 {
				if err := p.Detach(t.Context(), blue, pod, a); err != nil {
					t.Error(err)
				}
			}
			if _, err := netlink.LinkByName(pod.hostInterface()); err == nil {
				t.Error("the host's end is still there")
			}
			if leased, err := p.Leases(blue); err != nil || len(leased) != 0 {
				t.Errorf("%v, %v", leased, err)
			}
		}
	}
	for range 2 {
		if err := p.Remove(t.Context(), blue); err != nil {
			t.Error(err)
		}
	}
	if err := p.Detach(t.Context(), blue, Pod{ID: "one", Interface: "eth0"}, nil); err != nil {
		t.Error(err)
	}
	nothingLeft(t, p)
}

// What an address's new owner has must not go when the old one is detached late.
func TestDetachLate(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	p, small := place(t), Network{Name: "small", Bridge: "podsh9", Subnets: subnets("10.89.9.0/30")}
	old := newPod(t, "old", "eth0")
	a := attach(t, p, small, old)
	if err := p.Detach(t.Context(), small, old, a); err != nil {
		t.Fatal(err)
	}
	b := attach(t, p, small, newPod(t, "new", "eth0"))
	if a.Addresses[0] != b.Addresses[0] || a.MAC != b.MAC {
		t.Errorf("%v and %v", a, b)
	}
	if err := p.Detach(t.Context(), small, old, a); err != nil {
		t.Error(err)
	}
	if leased, err := p.Leases(small); err != nil || leased[b.Addresses[0].Addr()] != "new" {
		t.Errorf("%v, %v", leased, err)
	}
}

func TestExhausted(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	// Between the ends of a /29 are six addresses, and one is the gateway's.
	p, small := place(t), Network{Name: "small", Bridge: "podsh9", Subnets: subnets("fd00:89:9::/64", "10.89.9.0/29")}
	var pods []Pod
	seen := map[netip.Prefix]bool{}
	for i := range 5 {
		pods = append(pods, newPod(t, fmt.Sprint("pod", i), "eth0"))
		seen[attach(t, p, small, pods[i]).Addresses[1]] = true
	}
	if len(seen) != 5 {
		t.Error(seen)
	}
	more := newPod(t, "more", "eth0")
	var exhausted *ExhaustedError
	if _, err := p.Attach(t.Context(), small, more); !errors.As(err, &exhausted) || exhausted.Subnet != small.Subnets[1] {
		t.Error(err)
	}
	if leased, err := p.Leases(small); err != nil || len(leased) != 10 {
		t.Errorf("%v, %v", leased, err)
	}
	if err := p.Detach(t.Context(), small, pods[2], nil); err != nil {
		t.Error(err)
	}
	if a := attach(t, p, small, more); a.Addresses[1] != netip.MustParsePrefix("10.89.9.4/29") {
		t.Error(a.Addresses)
	}
}

func TestUndo(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	p := place(t)
	taken := newPod(t, "taken", "eth0")
	testns.In(t, taken.NetNS, func() { testns.Run(t, "ip", "link", "add", "eth0", "type", "bridge") })
	routed := newPod(t, "routed", "eth0")
	testns.In(t, routed.NetNS, func() { testns.Run(t, "ip", "route", "add", "default", "dev", "lo") })
	for _, pod := range []Pod{taken, routed} {
		if _, err := p.Attach(t.Context(), blue, pod); !errors.Is(err, unix.EEXIST) {
			t.Errorf("%s: %v", pod.ID, err)
		}
	}
	if err := p.Remove(t.Context(), blue); err != nil {
		t.Error(err) // nothing is attached
	}
	nothingLeft(t, p)

	stranger := newPod(t, "stranger", "eth0")
	testns.Run(t, "ip", "link", "add", blue.Bridge, "up", "type", "bridge")
	if _, err := p.Attach(t.Context(), blue, stranger); err == nil || !strings.Contains(err.Error(), "not this network's") {
		t.Error(err)
	}
	testns.Run(t, "ip", "link", "show", blue.Bridge)
}

func TestAgain(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	p := place(t)
	// A bridge that a killed process left half made is made anew.
	testns.Run(t, "ip", "link", "add", blue.Bridge, "type", "bridge")
	one, two := newPod(t, "one", "eth0"), newPod(t, "two", "eth0")
	attach(t, p, blue, one)
	if _, err := p.Attach(t.Context(), blue, one); !errors.Is(err, ErrAttached) {
		t.Error(err)
	}
	b := attach(t, p, blue, two)
	if _, err := reach(t, one.NetNS, two.NetNS, b.Addresses[0].Addr()); err != nil {
		t.Error(err)
	}
	rules := testns.Run(t, "ip", "rule")
	if strings.Count(rules, blue.Bridge) != 3 {
		t.Error(rules)
	}
}

// Goroutines and processes attach pods at once: no address is leased twice.
func TestManyAtOnce(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	p := place(t)
	var pods []Pod
	for i := range 50 {
		pods = append(pods, Pod{ID: fmt.Sprint("pod", i), NetNS: testns.NewNetwork(t), Interface: "eth0"})
	}
	var wait sync.WaitGroup
	for i, pod := range pods {
		wait.Go(func() {
			if i%10 > 0 {
				if _, err := p.Attach(t.Context(), blue, pod); err != nil {
					t.Error(err)
				}
				return
			}
			text, _ := json.Marshal(map[string]any{"Place": p, "Network": blue, "ID": pod.ID})
			cmd := exec.Command("/proc/self/exe")
			cmd.Env, cmd.ExtraFiles = append(os.Environ(), job+"="+string(text)), []*os.File{pod.NetNS}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wait.Wait()
	leased, err := p.Leases(blue)
	if err != nil || len(leased) != 100 {
		t.Errorf("%d leases, %v", len(leased), err)
	}
	has := map[string]int{}
	for _, id := range leased {
		has[id]++
	}
	if len(has) != 50 {
		t.Errorf("%d pods", len(has))
	}
	for _, pod := range pods {
		wait.Go(func() {
			if err := p.Detach(t.Context(), blue, pod, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if err := p.Remove(t.Context(), blue); err != nil {
		t.Error(err)
	}
	nothingLeft(t, p)
}
