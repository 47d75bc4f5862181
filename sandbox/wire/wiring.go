// Package wire is a pod's network from outside: it starts the helper and its keeper, puts the pod on networks,
// publishes its ports and changes all that while the pod runs. It knows what a pod is, and nothing of the order in
// which one is made.
package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/doctor"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/step"
	"github.com/podsh/podsh/sandbox/store"
)

// Wiring is a pod's network being set up, or changed: whatever was done is undone unless it is kept.
type Wiring struct {
	pod    *pod.Pod
	State  *pod.NetState
	Maker  *perform.Maker
	Helper *helper
	own    bool // the helper is the pod's own, and new
	work   *Work
	netns  *os.File
	ports  []*Listening
	tun    *os.File
	undo   []func()

	started chan error // processes that are being started
}

// NewWiring is the wiring of a pod whose network is like state; that is changed as things are done.
func NewWiring(pod *pod.Pod, state *pod.NetState) *Wiring { return &Wiring{pod: pod, State: state} }

// UndoAll takes everything back that was not kept.
func (w *Wiring) UndoAll() {
	_ = w.AwaitEarly() // why we are here is told already, or this is it
	for i := len(w.undo) - 1; i >= 0; i-- {
		w.undo[i]()
	}
	w.undo = nil
	w.close()
}

// close lets go of what was needed only meanwhile.
func (w *Wiring) close() {
	if w.work != nil {
		w.work.Close()
	}
	if w.Helper != nil {
		w.Helper.close()
	}
	if w.Maker != nil {
		w.Maker.Close() // the helper has a copy
	}
	closeListening(w.ports)
	for _, file := range []*os.File{w.netns, w.tun} {
		if file != nil {
			file.Close()
		}
	}
	w.work, w.Helper, w.Maker, w.ports, w.netns, w.tun = nil, nil, nil, nil, nil, nil
}

// StartEarly starts the processes that need nothing of the pod: they take a while, and meanwhile it is made.
func (w *Wiring) StartEarly(hub *pod.Pod) {
	w.started = make(chan error, 1)
	go func() {
		err := w.startHelper(hub)
		if err == nil && hub != nil && len(w.pod.Spec.Net.Networks) > 0 {
			w.work, err = StartWork(store.StoreOf(w.pod), hub)
		}
		w.started <- err
	}()
}

// AwaitEarly waits for them.
func (w *Wiring) AwaitEarly() error {
	if w.started == nil {
		return nil
	}
	err := <-w.started
	w.started = nil
	return err
}

// startHelper starts a helper for the pod, or finds the one of its hub.
func (w *Wiring) startHelper(hub *pod.Pod) (err error) {
	if hub != nil {
		w.Helper, _, err = findHelper(hub, kept{})
		return err
	}
	if w.Helper, err = startHelper(w.pod, 0); err != nil {
		return err
	}
	w.own = true
	w.State.Helper, w.State.Keeper = &w.Helper.process, &w.Helper.keeper
	w.undo = append(w.undo, w.Helper.kill)
	return nil
}

// openNetwork opens the namespace, for those who put an interface into it.
func (w *Wiring) openNetwork(pid int) (err error) {
	if w.netns == nil {
		w.netns, err = os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	}
	return err
}

// Attach puts the pod on a network, as was asked for. The first that has a way out leads there.
func (w *Wiring) Attach(hub *pod.Pod, pid int, n *network.Network, asked spec.Endpoint) error {
	if err := w.openNetwork(pid); err != nil {
		return err
	}
	if w.work == nil {
		work, err := StartWork(store.StoreOf(w.pod), hub)
		if err != nil {
			return err
		}
		w.work = work
	}
	job := &control.Work{Do: control.Attach, Network: *n, Pod: w.pod.ID, Interface: w.freeInterface(), Default: !w.hasDefault(),
		IPs: asked.IPs, MAC: asked.MAC}
	done, err := w.work.do(job, w.netns)
	if err != nil {
		return err
	}
	attached := done.Attachment
	attached.Aliases = asked.Aliases
	w.undo = append(w.undo, func() {
		_, _ = w.work.do(&control.Work{Do: control.Detach, Network: *n, Pod: w.pod.ID, Attachment: attached}, w.netns) // the hub's end clears the rest
	})
	w.State.Attachments = append(w.State.Attachments, *attached)
	for _, address := range attached.Addresses {
		w.State.Addresses = append(w.State.Addresses, address.Addr())
	}
	return nil
}

// hasDefault says whether one of the pod's networks leads out already.
func (w *Wiring) hasDefault() bool {
	return slices.ContainsFunc(w.State.Attachments, func(a network.Attachment) bool { return a.Default })
}

// freeInterface is the first of eth0, eth1, … that the pod has not.
func (w *Wiring) freeInterface() string {
	for i := 0; ; i++ {
		name := "eth" + strconv.Itoa(i)
		taken := false
		for _, a := range w.State.Attachments {
			taken = taken || a.Interface == name
		}
		if !taken {
			return name
		}
	}
}

// tunMTU is the size of packets on the way out. Nothing but memory lies between the pod and its helper, and
// the host's connections have sizes of their own.
const tunMTU = 65520

// tunRequest is a struct ifreq for the tun device: its name and flags, TUNSETIFF in linux/if_tun.h.
func tunRequest() []byte {
	var request [40]byte
	copy(request[:unix.IFNAMSIZ-1], network.Tun)
	step.Native.PutUint16(request[unix.IFNAMSIZ:], unix.IFF_TUN|unix.IFF_NO_PI|unix.IFF_VNET_HDR)
	return request[:]
}

// openTun opens the device that the way out leads over; it stays when the helper ends, and another takes it
// over.
func (w *Wiring) openTun() error {
	b := &plan.Builder{}
	tun := b.Call(unix.SYS_OPENAT, unix.AT_FDCWD, "/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	b.Call(unix.SYS_IOCTL, tun, unix.TUNSETIFF, tunRequest())
	b.Call(unix.SYS_IOCTL, tun, unix.TUNSETPERSIST, 1)
	b.Call(unix.SYS_IOCTL, tun, unix.TUNSETOFFLOAD, tunOffloads)
	fds, err := w.Maker.Do(b, tun)
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fault.WithHint(err, "as root: chmod 666 /dev/net/tun (most distributions have it so)")
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fault.WithHint(err, "as root: modprobe tun; in a container the device has to be handed in")
	case errors.Is(err, unix.EBUSY):
		return fault.WithHint(err, "another helper has the pod's way out: `podsh inspect %s`", store.Ref(w.pod))
	case err != nil:
		return fmt.Errorf("%s: %w", network.Tun, err)
	}
	w.tun = os.NewFile(uintptr(fds[0]), network.Tun)
	return nil
}

// LeadOut gives the pod a way out: an interface, its addresses and routes.
func (w *Wiring) LeadOut(ipv6 bool) error {
	if err := w.openTun(); err != nil {
		return err
	}
	index, err := w.tunIndex()
	if err != nil {
		return err
	}
	link := w.pod.Spec.Net.Outbound()
	requests := [][]byte{network.SetLink(network.Loopback, 65536), network.SetLink(index, tunMTU)}
	w.State.Addresses = nil
	for i, own := range link.Own {
		if own.Addr().Is4() || ipv6 {
			w.State.Addresses = append(w.State.Addresses, own.Addr())
			requests = append(requests, network.AddAddress(index, own), network.AddDefaultRoute(index, link.Gateways[i]))
		}
	}
	return w.Maker.Request("set "+network.Tun+" up", requests...)
}

// tunIndex asks for the number of the interface, through a socket that stands in the pod's network.
func (w *Wiring) tunIndex() (int, error) {
	b := &plan.Builder{}
	socket := b.Call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	fds, err := w.Maker.Do(b, socket)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fds[0])
	request, err := unix.NewIfreq(network.Tun)
	if err == nil {
		err = unix.IoctlIfreq(fds[0], unix.SIOCGIFINDEX, request)
	}
	if err != nil {
		return 0, fmt.Errorf("SIOCGIFINDEX %s: %w", network.Tun, err)
	}
	return int(request.Uint32()), nil
}

// tunOffloads: the kernel hands over packets of up to 64 KiB, and takes such, whole and without checksums.
const tunOffloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6

// member is the pod as its helper knows it.
func (w *Wiring) member() *control.Member {
	pod := w.pod
	n := &pod.Spec.Net
	m := &control.Member{ID: pod.ID, Lead: w.own, Addresses: w.State.Addresses, DNS: n.DNS, Internal: len(w.State.Attachments) > 0,
		Networks: map[string][]netip.Addr{}, Aliases: map[string][]string{}}
	for _, name := range []string{pod.Spec.Name, pod.Hostname, pod.ID} {
		if name != "" {
			m.Names = append(m.Names, name)
		}
	}
	if n.HostAccess {
		ports := append(control.HostPorts{}, n.HostPorts...) // nil would be null in JSON: no access
		m.HostPorts = &ports
	}
	for i := range w.State.Attachments {
		a := &w.State.Attachments[i]
		for _, address := range a.Addresses {
			m.Networks[a.Network] = append(m.Networks[a.Network], address.Addr())
		}
		m.Aliases[a.Network] = a.Aliases
		if known, err := store.StoreOf(pod).ReadNetwork(a.Network); err != nil || !known.Internal {
			m.Internal = false
		}
	}
	m.Hosts = n.AsksHosts() && !m.Internal
	return m
}

// Serve makes the helper know the pod, and gives it the maker.
func (w *Wiring) Serve(hub *pod.Pod, pidfd *os.File) error {
	if hub != nil {
		if err := w.resolve(hub); err != nil {
			return err
		}
	}
	return w.serveMember(pidfd)
}

// serveMember gives the maker away for good: what still takes one that sets the network up takes another.
func (w *Wiring) serveMember(pidfd *os.File) error {
	if err := w.Maker.Confine(); err != nil {
		return err
	}
	if _, err := w.Helper.Ask(&control.Request{Do: control.Serve, Member: w.member()}, pidfd, w.Maker.File()); err != nil {
		return err
	}
	w.State.Served = true
	w.undo = append(w.undo, func() {
		_, _ = w.Helper.Ask(&control.Request{Do: control.Forget, Pod: w.pod.ID}) // it watches the pod as well
	})
	n := &w.pod.Spec.Net
	if program := n.WayOut; w.tun != nil {
		_, err := w.Helper.Ask(&control.Request{Do: control.WayOut, Pod: w.pod.ID, Way: &control.Way{MTU: tunMTU, Link: n.Outbound(), Shared: w.pod.IsHub}}, w.tun)
		return err
	} else if w.own && program != spec.WayOutNone && program != spec.WayOutStack {
		path, err := wayProgram(program)
		if err == nil {
			_, err = w.Helper.Ask(&control.Request{Do: control.WayOut, Pod: w.pod.ID, Way: &control.Way{MTU: tunMTU, Link: n.Outbound(), Program: program, Path: path}})
		}
		return err
	}
	return nil
}

// wayProgram is where a way out lies that is another's: the helper has no PATH to look it up in.
func wayProgram(name string) (string, error) {
	path, err := doctor.ProgramPath(name)
	if err != nil {
		packages := map[string]string{spec.WayOutPasta: "passt", spec.WayOutSlirp: "slirp4netns"}
		return "", fault.New(nil, []string{"install " + name + " (Debian: " + packages[name] + "), or take podsh's own: --net outbound"}, "%s is not installed", name)
	}
	return path, nil
}

// Publish hands the sockets of ports to the helper.
func (w *Wiring) Publish() error {
	const atOnce = 100 // of at most two sockets: one packet's worth
	for from := 0; from < len(w.ports); from += atOnce {
		request := &control.Request{Do: control.Publish, Pod: w.pod.ID}
		var sockets []*os.File
		for _, l := range w.ports[from:min(from+atOnce, len(w.ports))] {
			request.Ports = append(request.Ports, l.Port)
			request.Sockets = append(request.Sockets, len(l.Sockets))
			sockets = append(sockets, l.Sockets...)
		}
		if _, err := w.Helper.Ask(request, sockets...); err != nil {
			return err
		}
		w.undo = append(w.undo, func() {
			_, _ = w.Helper.Ask(&control.Request{Do: control.Unpublish, Pod: w.pod.ID, Ports: request.Ports}) // it ends with the pod as well
		})
	}
	for _, l := range w.ports {
		w.State.Ports = append(w.State.Ports, l.Port)
	}
	return nil
}

// Listen opens the host's end of ports.
func (w *Wiring) Listen(ports []network.Port) (err error) {
	var stowed sockets
	if w.Helper != nil {
		stowed = w.Helper.stowed
	}
	w.ports, err = listenAll(ports, stowed)
	return err
}

// KeepReplies keeps answers in the pod, once.
func (w *Wiring) KeepReplies(ports []network.Port) error {
	if len(w.State.Addresses) == 0 {
		return nil
	}
	if !w.State.Replies {
		if err := keepReplies(w.Maker, w.State.Addresses); err != nil {
			return err
		}
		w.State.Replies = true
	}
	return keepPortReplies(w.Maker, w.State, ports)
}

// Keep makes it last, and lets go of what was needed meanwhile.
func (w *Wiring) Keep() {
	w.undo = nil
	w.close()
}

// ListenForRequests makes the socket at which the pod's own helper is found later, and hands it over.
func (w *Wiring) ListenForRequests(dir string) (*os.File, error) {
	if !w.own {
		return nil, nil
	}
	return listenIn(dir)
}
