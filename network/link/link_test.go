package link

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/podsh/podsh/network/testns"
	"golang.org/x/sys/unix"
)

// job makes the test binary attach a pod and end: another process on the same networks.
const job = "PODSH_TEST_ATTACH"

func TestMain(m *testing.M) {
	if os.Getenv(job) != "" {
		if err := attachJob(os.Getenv(job)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Setenv("PATH", strings.Join(append([]string{os.Getenv("PATH")}, sbin...), ":")) // for ip, nft
	status := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(status)
}

func attachJob(text string) error {
	var do struct {
		Place   Place
		Network Network
		ID      string
	}
	if err := json.Unmarshal([]byte(text), &do); err != nil {
		return err
	}
	_, err := do.Place.Attach(context.Background(), do.Network, Pod{ID: do.ID, NetNS: os.NewFile(3, "netns"), Interface: "eth0"})
	return err
}

var (
	blue = Network{Name: "blue", Bridge: "podsh1", Subnets: subnets("10.89.1.0/24", "fd00:89:1::/64")}
	red  = Network{Name: "red", Bridge: "podsh2", Subnets: subnets("10.89.2.0/24", "fd00:89:2::/64")}
	dark = Network{Name: "dark", Bridge: "podsh3", Subnets: subnets("10.89.3.0/24", "fd00:89:3::/64"), Internal: true}
)

func subnets(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// place is where a test's networks are.
func place(t testing.TB) Place {
	t.Helper()
	dir := t.TempDir()
	testns.Run(t, "ip", "link", "set", "lo", "up")
	return Place{LeaseDir: filepath.Join(dir, "leases"), CacheDir: filepath.Join(dir, "cache")}
}

func newPod(t testing.TB, id, link string) Pod {
	t.Helper()
	pod := Pod{ID: id, NetNS: testns.NewNetwork(t), Interface: link, Default: true}
	testns.In(t, pod.NetNS, func() { testns.Run(t, "ip", "link", "set", "lo", "up") })
	return pod
}

func attach(t testing.TB, p Place, n Network, pod Pod) *Attachment {
	t.Helper()
	a, err := p.Attach(t.Context(), n, pod)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// reach connects from one namespace to a listener in another, and returns whom the listener sees.
func reach(t testing.TB, from, to *os.File, address netip.Addr) (netip.Addr, error) {
	t.Helper()
	var listener net.Listener
	var err error
	testns.In(t, to, func() { listener, err = listen(address) })
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var conn net.Conn
	testns.In(t, from, func() { conn, err = dial(listener.Addr().String()) })
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	other, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	return other.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(), nil
}

func listen(address netip.Addr) (net.Listener, error) {
	return net.Listen("tcp", netip.AddrPortFrom(address, 0).String())
}

// dial tries but one address, so that the socket is made by this very thread.
func dial(address string) (net.Conn, error) { return net.DialTimeout("tcp", address, 2*time.Second) }

// standing is the network namespace that the test stands in.
func standing(t testing.TB) *os.File {
	t.Helper()
	file, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// nothingLeft complains of whatever networks have left where the test stands.
func nothingLeft(t *testing.T, p Place) {
	t.Helper()
	for _, show := range []string{"ip -br link show type bridge", "ip -br link show type veth", "ip route show table all",
		"ip rule", "ip -6 rule", "ip -6 route show table all", "nft list ruleset"} {
		for line := range strings.Lines(testns.Run(t, strings.Fields(show)...)) {
			for _, sign := range []string{"podsh", "veth", "10.89.", "fd00:89:", strconv.Itoa(ApartTable), "prohibit"} {
				if strings.Contains(line, sign) && !strings.HasPrefix(line, "up0@") {
					t.Errorf("%s: %s", show, line)
				}
			}
		}
	}
	files, err := filepath.Glob(p.LeaseDir + "/*/*")
	if err != nil || len(files) > 0 {
		t.Errorf("leases: %v, %v", files, err)
	}
}

// BenchmarkAttach is for a person, who looks at the first and the last pods' times:
// go test -exec 'unshare -Urnm' -run '^$' -bench Attach -benchtime 200x
func BenchmarkAttach(b *testing.B) {
	if os.Getuid() != 0 {
		b.Fatal("run it as root of namespaces of its own: go test -exec 'unshare -Urnm'")
	}
	p := place(b)
	p.LeaseDir = b.TempDir()
	if err := unix.Mount("none", p.LeaseDir, "tmpfs", 0, ""); err != nil { // leases are below /run
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Unmount(p.LeaseDir, unix.MNT_DETACH) })
	var took []time.Duration
	for i := range b.N {
		b.StopTimer()
		pod := Pod{ID: fmt.Sprintf("pod%d.%d", b.N, i), NetNS: testns.NewNetwork(b), Interface: "eth0", Default: true}
		b.StartTimer()
		start := time.Now()
		attach(b, p, blue, pod)
		took = append(took, time.Since(start))
	}
	if few := min(20, len(took)); b.N > 1 {
		b.ReportMetric(float64(median(took[1:1+few-1]).Microseconds()), "first-µs")
		b.ReportMetric(float64(median(took[len(took)-few:]).Microseconds()), "last-µs")
	}
}

func median(times []time.Duration) time.Duration {
	times = slices.Sorted(slices.Values(times))
	return times[len(times)/2]
}
