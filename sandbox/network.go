package sandbox

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/nsenter"
)

var native = binary.NativeEndian

// Networks are described in the store, beside the pods:
//
//	networks/NAME       the network
//	hub                 the id of the hub, the pod that holds the bridges
//	leases/NAME/IP      the id of the pod that has an address, as the plugin host-local writes it
//	leases/cache        what libcni keeps

// NetworkSpec is what a user asked for.
type NetworkSpec struct {
	Name     string
	Subnets  []netip.Prefix
	IPv6     bool
	NoIPv4   bool
	Internal bool
	Conflist []byte // of the user's own
}

// firstSubnets are where networks are looked for that say nothing of it.
var (
	firstSubnet4 = netip.MustParsePrefix("10.89.0.0/24")
	firstSubnet6 = netip.MustParsePrefix("fd70:6f64:7368:1::/64")
)

const mostNetworks = 256 // of the default subnets

// Validate says what is wrong with it by itself.
func (n *NetworkSpec) Validate() error {
	if !isName(n.Name) || reservedNetwork(n.Name) || strings.HasSuffix(n.Name, ".new") || n.Name == "cache" {
		return fail(ErrInvalid, []string{"letters, digits, and _ . - but not first; 63 at most; and no word that --net knows"}, "malformed network name %q", n.Name)
	}
	if n.Conflist != nil && (len(n.Subnets) > 0 || n.IPv6 || n.NoIPv4 || n.Internal) {
		return fail(ErrInvalid, []string{"say it in the configuration itself"}, "--conflist excludes --subnet, --ipv4, --ipv6 and --internal")
	}
	families := map[bool]int{}
	for _, subnet := range n.Subnets {
		families[subnet.Addr().Is4()]++
		most := 126
		if subnet.Addr().Is4() {
			most = 29
		}
		if subnet.Masked() != subnet {
			return fail(ErrInvalid, []string{"--subnet " + subnet.Masked().String()}, "--subnet %s: there are bits behind the mask", subnet)
		}
		if subnet.Bits() > most || subnet.Bits() < 8 || subnet.Addr().IsLoopback() || subnet.Addr().IsMulticast() || subnet.Addr().IsLinkLocalUnicast() {
			return fail(ErrInvalid, []string{"such as --subnet 10.90.0.0/24, up to /29, or --subnet fd00:1234::/64"}, "--subnet %s is not for pods", subnet)
		}
		if subnet.Overlaps(netip.PrefixFrom(network.OwnAddress4.Addr(), 24).Masked()) || subnet.Overlaps(network.OwnAddress6.Masked()) || subnet.Contains(network.HostResolver6) {
			return fail(ErrInvalid, []string{"such as --subnet 10.90.0.0/24 or fd00:1234::/64"}, "--subnet %s: podsh has addresses there", subnet)
		}
	}
	if families[true] > 1 || families[false] > 1 {
		return fail(ErrInvalid, []string{"--subnet 10.90.0.0/24 --subnet fd00:1234::/64"}, "a network has one subnet of IPv4 at most, and one of IPv6")
	}
	if n.NoIPv4 && (families[true] > 0 || families[false] == 0 && !n.IPv6) {
		return fail(ErrInvalid, []string{"--ipv4=false --ipv6, or --subnet fd00:1234::/64"}, "--ipv4=false leaves the network no subnet, or contradicts one")
	}
	if (n.IPv6 || families[false] > 0) && !exists("/proc/sys/net/ipv6") {
		return fail(nil, []string{"leave it out; ipv6.disable=1 on the kernel's command line is the usual cause"}, "this kernel has no IPv6")
	}
	return nil
}

// CreateNetwork writes a network down. It comes into being with its first pod.
func (s *Store) CreateNetwork(spec *NetworkSpec) (*network.Network, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	unlock, err := s.lock()
	if err != nil {
		return nil, s.full(err)
	}
	defer unlock()
	others, err := s.Networks()
	if err != nil {
		return nil, err
	}
	for _, other := range others {
		if other.Name == spec.Name {
			return nil, fail(ErrNameTaken, []string{"podsh network rm " + spec.Name + ", or choose another name"}, "network %q is there already", spec.Name)
		}
	}
	n := &network.Network{Name: spec.Name, Internal: spec.Internal, Conflist: spec.Conflist, Subnets: spec.Subnets, Bridge: freeBridge(others)}
	if spec.Conflist == nil {
		if err := chooseSubnets(n, spec, others); err != nil {
			return nil, err
		}
	} else if n.Conflist, err = namedConflist(spec.Conflist, spec.Name); err != nil {
		return nil, err
	}
	n.Resolver = resolverFor(networksOnHost(), n.OnlyIPv6())
	if err := os.MkdirAll(s.path("networks"), 0o700); err != nil {
		return nil, s.full(err)
	}
	return n, s.full(writeWhole(s.path("networks", n.Name), n))
}

// resolverFor is whom pods on networks ask for names.
func resolverFor(onHost, onlyIPv6 bool) netip.Addr {
	switch {
	case onHost && onlyIPv6:
		return network.HostResolver6
	case onHost:
		return network.HostResolver
	case onlyIPv6:
		return network.Resolver6
	}
	return network.Resolver4
}

// namedConflist checks a CNI configuration as far as this can be done without libcni, and gives it the name
// by which podsh knows it. A configuration of one plugin becomes a list.
func namedConflist(text []byte, name string) ([]byte, error) {
	hint := []string{"a CNI network configuration list: {\"cniVersion\": \"1.0.0\", \"name\": …, \"plugins\": [{\"type\": \"bridge\", …}]}"}
	var list map[string]any
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fail(nil, hint, "that is no JSON: %v", err)
	}
	if _, ok := list["type"].(string); ok && list["plugins"] == nil {
		list = map[string]any{"cniVersion": list["cniVersion"], "plugins": []any{list}}
	}
	plugins, _ := list["plugins"].([]any)
	if len(plugins) == 0 {
		return nil, fail(nil, hint, "it has no plugins")
	}
	for i, plugin := range plugins {
		if p, ok := plugin.(map[string]any); !ok || p["type"] == nil {
			return nil, fail(nil, hint, "plugin %d has no type", i+1)
		}
	}
	list["name"] = name
	return json.Marshal(list)
}

func freeBridge(others []*network.Network) string {
	taken := map[string]bool{}
	for _, other := range others {
		taken[other.Bridge] = true
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("podsh%d", i)
		if !taken[name] && !exists("/sys/class/net/"+name) {
			return name
		}
	}
}

// chooseSubnets finds subnets that nobody has, and refuses those that somebody has.
func chooseSubnets(n *network.Network, spec *NetworkSpec, others []*network.Network) error {
	has6 := false
	for _, subnet := range n.Subnets {
		has6 = has6 || subnet.Addr().Is6()
		if other := overlapping(subnet, others); other != nil {
			return fail(nil, []string{"`podsh network ls` shows which are taken; without --subnet one is chosen"},
				"subnet %s overlaps that of network %q", subnet, other.Name)
		}
	}
	// As docker and podman have it: with --ipv6 both, with a subnet of IPv6 alone only that.
	if !spec.NoIPv4 && (len(n.Subnets) == 0 || spec.IPv6 && n.OnlyIPv6()) {
		subnet, ok := freeSubnet(firstSubnet4, 2, others)
		if !ok {
			return fail(nil, []string{"--subnet names one of your own"}, "all %d subnets from %s are taken", mostNetworks, firstSubnet4)
		}
		n.Subnets = append([]netip.Prefix{subnet}, n.Subnets...)
	}
	if spec.IPv6 && !has6 {
		subnet, ok := freeSubnet(firstSubnet6, 7, others)
		if !ok {
			return fail(nil, []string{"--subnet names one of your own"}, "all %d subnets from %s are taken", mostNetworks, firstSubnet6)
		}
		n.Subnets = append(n.Subnets, subnet)
	}
	return nil
}

// freeSubnet counts the byte at up until nobody has the subnet, and the host itself has no address in it.
func freeSubnet(first netip.Prefix, at int, others []*network.Network) (netip.Prefix, bool) {
	bytes := first.Addr().AsSlice()
	for range mostNetworks {
		ip, _ := netip.AddrFromSlice(bytes) // of the length that an address has
		subnet := netip.PrefixFrom(ip, first.Bits())
		if overlapping(subnet, others) == nil && !hostRoutes(subnet) {
			return subnet, true
		}
		bytes[at]++
	}
	return netip.Prefix{}, false
}

func overlapping(subnet netip.Prefix, networks []*network.Network) *network.Network {
	for _, other := range networks {
		for _, taken := range other.Subnets {
			if taken.Overlaps(subnet) {
				return other
			}
		}
	}
	return nil
}

// Networks lists the networks, by name.
func (s *Store) Networks() ([]*network.Network, error) {
	entries, err := os.ReadDir(s.path("networks"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var networks []*network.Network
	for _, entry := range entries {
		if !isName(entry.Name()) || strings.HasSuffix(entry.Name(), ".new") {
			continue
		}
		n, err := s.readNetwork(entry.Name())
		if err != nil {
			return nil, err
		}
		networks = append(networks, n)
	}
	return networks, nil
}

// Network finds a network by its name.
func (s *Store) Network(name string) (*network.Network, error) {
	n, err := s.readNetwork(name)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return n, err
	}
	hint := "`podsh network ls` shows all networks, `podsh network create " + name + "` makes it"
	networks, _ := s.Networks() // for the hint alone
	var known []string
	for _, other := range networks {
		known = append(known, other.Name)
	}
	if near := Nearest(name, known); near != "" {
		hint = fmt.Sprintf("did you mean %q? `podsh network ls` shows all networks", near)
	}
	return nil, fail(ErrNoNetwork, []string{hint}, "no network named %q", name)
}

// networksNamed finds networks by their names.
func (s *Store) networksNamed(names ...string) (networks []*network.Network, err error) {
	for _, name := range names {
		n, err := s.Network(name)
		if err != nil {
			return nil, err
		}
		networks = append(networks, n)
	}
	return networks, nil
}

var errBrokenNetwork = errors.New("broken")

func (s *Store) readNetwork(name string) (*network.Network, error) {
	if !isName(name) {
		return nil, fs.ErrNotExist
	}
	text, err := os.ReadFile(s.path("networks", name))
	if err != nil {
		return nil, err
	}
	n := &network.Network{}
	if err := json.Unmarshal(text, n); err != nil {
		return nil, fail(errBrokenNetwork, []string{"podsh network rm " + name + ", and create it again"},
			"description of network %q (%s): %v", name, s.path("networks", name), err)
	}
	return n, nil
}

// RemoveNetwork removes a network that no pod is on.
func (s *Store) RemoveNetwork(name string) error {
	n, err := s.Network(name)
	broken := errors.Is(err, errBrokenNetwork) // then nobody knows its bridge
	if err != nil && !broken {
		return err
	}
	hub, unlock, err := s.lockHub(unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	on, err := s.podsOn(name)
	if err != nil {
		return err
	}
	if len(on) > 0 {
		return fail(nil, []string{fmt.Sprintf("podsh network disconnect %s POD, or podsh rm -f %s", name, strings.Join(on, " "))},
			"network %q is in use by %s", name, strings.Join(on, ", "))
	}
	if !broken && (hub != nil || networksOnHost()) {
		work, err := s.startWork(hub)
		if err != nil {
			return err
		}
		defer work.close()
		if err := work.remove(n); err != nil {
			return err
		}
	}
	leases := s.path("leases", name)
	if hub == nil {
		leases = s.path("leases") // nobody has any
	}
	if err := os.RemoveAll(leases); err != nil {
		return err
	}
	return os.Remove(s.path("networks", name))
}

// PruneNetworks removes the networks that no pod is on, and returns their names.
func (s *Store) PruneNetworks() (removed []string, err error) {
	networks, err := s.Networks()
	if err != nil {
		return nil, err
	}
	for _, n := range networks {
		on, onErr := s.podsOn(n.Name)
		if onErr == nil && len(on) == 0 {
			if onErr = s.RemoveNetwork(n.Name); onErr == nil {
				removed = append(removed, n.Name)
			}
		}
		if inUse, stillErr := s.podsOn(n.Name); onErr != nil && stillErr == nil && len(inUse) > 0 {
			continue // by a pod that came meanwhile
		}
		err = errors.Join(err, onErr)
	}
	return removed, err
}

// podsOn names the pods that are on a network.
func (s *Store) podsOn(name string) ([]string, error) {
	pods, err := s.List()
	if err != nil {
		return nil, err
	}
	var on []string
	for _, p := range pods {
		state, err := p.Net()
		if err != nil {
			continue // it can only be removed
		}
		if slices.ContainsFunc(state.Attachments, func(a network.Attachment) bool { return a.Network == name }) {
			on = append(on, p.Title())
		}
	}
	return on, nil
}

// work is the network's program at work where networks are.
type work struct {
	conn     *os.File
	executor *nsenter.Executor
	store    *Store
	onHost   bool
}

// remove takes a network away that no pod is on. Leases that are left are those of creations that were killed.
func (w *work) remove(n *network.Network) error {
	orphans, err := w.store.orphans(n)
	if err == nil {
		err = w.release(n, orphans)
	}
	if err == nil {
		_, err = w.do(&control.Work{Do: control.Remove, Network: *n})
	}
	return err
}

// release gives back what pods have of a network that are gone.
func (w *work) release(n *network.Network, leases []lease) error {
	for _, l := range leases {
		if _, err := w.do(&control.Work{Do: control.Detach, Network: *n, Pod: l.pod, Interface: l.link}); err != nil {
			return err
		}
	}
	return nil
}

// lease is who has an address.
type lease struct{ pod, link string }

// orphans are the leases of pods that are not there. Whoever asks has the hub alone, so none is just being made.
func (s *Store) orphans(n *network.Network) ([]lease, error) {
	entries, err := os.ReadDir(s.path("leases", n.Name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var orphans []lease
	for _, entry := range entries {
		if _, err := netip.ParseAddr(entry.Name()); err != nil {
			continue // the lock, and the last address that was given
		}
		text, err := os.ReadFile(s.path("leases", n.Name, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		l := lease{}
		l.pod, l.link, _ = strings.Cut(string(text), "\r\n") // as host-local writes it
		if isID(l.pod) && !exists(s.path("pods", l.pod)) && !slices.Contains(orphans, l) {
			orphans = append(orphans, l)
		}
	}
	return orphans, nil
}

// startWork starts it in the hub, or on the host, if networks are there.
func (s *Store) startWork(hub *Pod) (*work, error) {
	var pidfd *os.File
	namespaces := 0
	if hub != nil && hub.own("net") {
		var err error
		if pidfd, err = hub.Open(); err != nil {
			return nil, err
		}
		defer pidfd.Close()
		namespaces = hub.netNamespaces()
	}
	conn, executor, err := startProgram(workRole, pidfd, namespaces)
	if err != nil {
		return nil, err
	}
	return &work{conn, executor, s, namespaces == 0}, nil
}

// do does one thing, and waits until it is done.
func (w *work) do(job *control.Work, files ...*os.File) (*control.Done, error) {
	if err := w.fill(job); err != nil {
		return nil, err
	}
	if err := control.Send(w.conn, job, files...); err != nil {
		return nil, err
	}
	done := &control.Done{}
	_, err := control.Receive(w.conn, done)
	switch {
	case err != nil:
		return nil, fmt.Errorf("network %q: the work on it ended without a word: %w", job.Network.Name, err)
	case done.Error != "" && done.Hint != "":
		return nil, withHint(errors.New(done.Error), "%s", done.Hint)
	case done.Error != "":
		return nil, fail(nil, []string{"`podsh network inspect " + job.Network.Name + "` shows how it was made"}, "%s", done.Error)
	}
	return done, nil
}

// fill adds what all work needs to know.
func (w *work) fill(job *control.Work) error {
	job.Leases, job.Cache = w.store.path("leases"), w.store.path("leases", "cache")
	job.PluginPath = pluginPath()
	job.Masquerade = w.onHost
	return os.MkdirAll(job.Leases, 0o700)
}

// close lets the program end, which is ours to reap.
func (w *work) close() {
	w.conn.Close()
	w.executor.Reap()
}

// pluginPath is where CNI plugins are looked for: where the user says, beside podsh, and where they usually are.
func pluginPath() []string {
	path := filepath.SplitList(os.Getenv("CNI_PATH"))
	if self, err := os.Readlink("/proc/self/exe"); err == nil {
		path = append(path, filepath.Join(filepath.Dir(self), "cni"), filepath.Join(filepath.Dir(self), "../lib/podsh/cni"))
	}
	return append(path, "/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
}

// networksOnHost says whether networks come to be on the host: for root, if the kernel can be told to do what
// the helper does else, to send what comes from pods out under the host's address.
func networksOnHost() bool {
	if os.Geteuid() != 0 {
		return false
	}
	for _, program := range []string{"nft", "iptables"} {
		if _, err := exec.LookPath(program); err == nil {
			return true
		}
	}
	return false
}

// hostRoutes says whether the host has a route into a subnet: pods there would hide it. What can't be read is
// no obstacle.
func hostRoutes(subnet netip.Prefix) bool {
	routes, _ := os.ReadFile("/proc/net/route")
	for line := range strings.Lines(string(routes)) {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			continue
		}
		destination, err1 := strconv.ParseUint(fields[1], 16, 32)
		mask, err2 := strconv.ParseUint(fields[7], 16, 32)
		if err1 != nil || err2 != nil || mask == 0 {
			continue
		}
		ip := netip.AddrFrom4([4]byte(native.AppendUint32(nil, uint32(destination)))) // as in memory: proc_pid_net(5)
		if netip.PrefixFrom(ip, bits.OnesCount32(uint32(mask))).Overlaps(subnet) {
			return true
		}
	}
	routes, _ = os.ReadFile("/proc/net/ipv6_route")
	for line := range strings.Lines(string(routes)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		destination, err1 := hex.DecodeString(fields[0])
		length, err2 := strconv.ParseUint(fields[1], 16, 8)
		ip, ok := netip.AddrFromSlice(destination)
		if err1 == nil && err2 == nil && ok && length > 0 && netip.PrefixFrom(ip, int(length)).Overlaps(subnet) {
			return true
		}
	}
	return false
}

// isGone says whether what was to be removed was not there.
func isGone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }
