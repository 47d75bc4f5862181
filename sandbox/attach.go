package sandbox

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
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
)

// wiring is a pod's network being set up, or changed: whatever was done is undone unless it is kept.
type wiring struct {
	pod    *pod.Pod
	state  *pod.NetState
	maker  *perform.Maker
	helper *helper
	own    bool // the helper is the pod's own, and new
	work   *work
	netns  *os.File
	ports  []*listening
	tun    *os.File
	undo   []func()

	started chan error // processes that are being started
}

func newWiring(pod *pod.Pod, state *pod.NetState) *wiring { return &wiring{pod: pod, state: state} }

// undoAll takes everything back that was not kept.
func (w *wiring) undoAll() {
	_ = w.awaitEarly() // why we are here is told already, or this is it
	for i := len(w.undo) - 1; i >= 0; i-- {
		w.undo[i]()
	}
	w.undo = nil
	w.close()
}

// close lets go of what was needed only meanwhile.
func (w *wiring) close() {
	if w.work != nil {
		w.work.close()
	}
	if w.helper != nil {
		w.helper.close()
	}
	if w.maker != nil {
		w.maker.Close() // the helper has a copy
	}
	closeListening(w.ports)
	for _, file := range []*os.File{w.netns, w.tun} {
		if file != nil {
			file.Close()
		}
	}
	w.work, w.helper, w.maker, w.ports, w.netns, w.tun = nil, nil, nil, nil, nil, nil
}

// startEarly starts the processes that need nothing of the pod: they take a while, and meanwhile it is made.
func (w *wiring) startEarly(hub *pod.Pod) {
	w.started = make(chan error, 1)
	go func() {
		err := w.startHelper(hub)
		if err == nil && hub != nil && len(w.pod.Spec.Net.Networks) > 0 {
			w.work, err = startWork(store.StoreOf(w.pod), hub)
		}
		w.started <- err
	}()
}

// awaitEarly waits for them.
func (w *wiring) awaitEarly() error {
	if w.started == nil {
		return nil
	}
	err := <-w.started
	w.started = nil
	return err
}

// startHelper starts a helper for the pod, or finds the one of its hub.
func (w *wiring) startHelper(hub *pod.Pod) (err error) {
	if hub != nil {
		w.helper, _, err = findHelper(hub)
		return err
	}
	if w.helper, err = startHelper(w.pod); err != nil {
		return err
	}
	w.own = true
	w.state.Helper, w.state.Keeper = &w.helper.process, &w.helper.keeper
	w.undo = append(w.undo, w.helper.kill)
	return nil
}

// openNetwork opens the namespace, for those who put an interface into it.
func (w *wiring) openNetwork(pid int) (err error) {
	if w.netns == nil {
		w.netns, err = os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	}
	return err
}

// attach puts the pod on a network, as was asked for. The first that has a way out leads there.
func (w *wiring) attach(hub *pod.Pod, pid int, n *network.Network, asked spec.Endpoint) error {
	if err := w.openNetwork(pid); err != nil {
		return err
	}
	if w.work == nil {
		work, err := startWork(store.StoreOf(w.pod), hub)
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
	w.state.Attachments = append(w.state.Attachments, *attached)
	for _, address := range attached.Addresses {
		w.state.Addresses = append(w.state.Addresses, address.Addr())
	}
	return nil
}

// hasDefault says whether one of the pod's networks leads out already.
func (w *wiring) hasDefault() bool {
	return slices.ContainsFunc(w.state.Attachments, func(a network.Attachment) bool { return a.Default })
}

// freeInterface is the first of eth0, eth1, … that the pod has not.
func (w *wiring) freeInterface() string {
	for i := 0; ; i++ {
		name := "eth" + strconv.Itoa(i)
		taken := false
		for _, a := range w.state.Attachments {
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
	plan.Native.PutUint16(request[unix.IFNAMSIZ:], unix.IFF_TUN|unix.IFF_NO_PI|unix.IFF_VNET_HDR)
	return request[:]
}

// openTun opens the device that the way out leads over; it stays when the helper ends, and another takes it
// over.
func (w *wiring) openTun() error {
	b := &plan.Builder{}
	tun := b.Call(unix.SYS_OPENAT, unix.AT_FDCWD, "/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	b.Call(unix.SYS_IOCTL, tun, unix.TUNSETIFF, tunRequest())
	b.Call(unix.SYS_IOCTL, tun, unix.TUNSETPERSIST, 1)
	b.Call(unix.SYS_IOCTL, tun, unix.TUNSETOFFLOAD, tunOffloads)
	fds, err := w.maker.Do(b, tun)
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

// leadOut gives the pod a way out: an interface, its addresses and routes.
func (w *wiring) leadOut(ipv6 bool) error {
	if err := w.openTun(); err != nil {
		return err
	}
	index, err := w.tunIndex()
	if err != nil {
		return err
	}
	link := w.pod.Spec.Net.Outbound()
	requests := [][]byte{network.SetLink(network.Loopback, 65536), network.SetLink(index, tunMTU)}
	w.state.Addresses = nil
	for i, own := range link.Own {
		if own.Addr().Is4() || ipv6 {
			w.state.Addresses = append(w.state.Addresses, own.Addr())
			requests = append(requests, network.AddAddress(index, own), network.AddDefaultRoute(index, link.Gateways[i]))
		}
	}
	return w.maker.Request("set "+network.Tun+" up", requests...)
}

// tunIndex asks for the number of the interface, through a socket that stands in the pod's network.
func (w *wiring) tunIndex() (int, error) {
	b := &plan.Builder{}
	socket := b.Call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	fds, err := w.maker.Do(b, socket)
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
func (w *wiring) member() *control.Member {
	pod := w.pod
	n := &pod.Spec.Net
	m := &control.Member{ID: pod.ID, Lead: w.own, Addresses: w.state.Addresses, DNS: n.DNS, Internal: len(w.state.Attachments) > 0,
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
	for i := range w.state.Attachments {
		a := &w.state.Attachments[i]
		for _, address := range a.Addresses {
			m.Networks[a.Network] = append(m.Networks[a.Network], address.Addr())
		}
		m.Aliases[a.Network] = a.Aliases
		if known, err := store.StoreOf(pod).ReadNetwork(a.Network); err != nil || !known.Internal {
			m.Internal = false
		}
	}
	return m
}

// serve makes the helper know the pod, and gives it the maker.
func (w *wiring) serve(hub *pod.Pod, pidfd *os.File) error {
	if hub != nil {
		if err := w.resolve(hub); err != nil {
			return err
		}
	}
	return w.serveMember(pidfd)
}

// serveMember gives the maker away for good: what still takes one that sets the network up takes another.
func (w *wiring) serveMember(pidfd *os.File) error {
	if err := w.maker.Confine(); err != nil {
		return err
	}
	if _, err := w.helper.ask(&control.Request{Do: control.Serve, Member: w.member()}, pidfd, w.maker.File()); err != nil {
		return err
	}
	w.state.Served = true
	w.undo = append(w.undo, func() {
		_, _ = w.helper.ask(&control.Request{Do: control.Forget, Pod: w.pod.ID}) // it watches the pod as well
	})
	n := &w.pod.Spec.Net
	if program := n.WayOut; w.tun != nil {
		_, err := w.helper.ask(&control.Request{Do: control.WayOut, Pod: w.pod.ID, Way: &control.Way{MTU: tunMTU, Link: n.Outbound(), Shared: w.pod.IsHub}}, w.tun)
		return err
	} else if w.own && program != spec.WayOutNone && program != spec.WayOutStack {
		path, err := wayProgram(program)
		if err == nil {
			_, err = w.helper.ask(&control.Request{Do: control.WayOut, Pod: w.pod.ID, Way: &control.Way{MTU: tunMTU, Link: n.Outbound(), Program: program, Path: path}})
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

// publish hands the sockets of ports to the helper.
func (w *wiring) publish() error {
	const atOnce = 100 // of at most two sockets: one packet's worth
	for from := 0; from < len(w.ports); from += atOnce {
		request := &control.Request{Do: control.Publish, Pod: w.pod.ID}
		var sockets []*os.File
		for _, l := range w.ports[from:min(from+atOnce, len(w.ports))] {
			request.Ports = append(request.Ports, l.port)
			request.Sockets = append(request.Sockets, len(l.sockets))
			sockets = append(sockets, l.sockets...)
		}
		if _, err := w.helper.ask(request, sockets...); err != nil {
			return err
		}
		w.undo = append(w.undo, func() {
			_, _ = w.helper.ask(&control.Request{Do: control.Unpublish, Pod: w.pod.ID, Ports: request.Ports}) // it ends with the pod as well
		})
	}
	for _, l := range w.ports {
		w.state.Ports = append(w.state.Ports, l.port)
	}
	return nil
}

// listen opens the host's end of ports.
func (w *wiring) listen(ports []network.Port) (err error) {
	var stowed sockets
	if w.helper != nil {
		stowed = w.helper.stowed
	}
	w.ports, err = listenAll(ports, stowed)
	return err
}

// keepReplies keeps answers in the pod, once.
func (w *wiring) keepReplies(ports []network.Port) error {
	if len(w.state.Addresses) == 0 {
		return nil
	}
	if !w.state.Replies {
		if err := keepReplies(w.maker, w.state.Addresses); err != nil {
			return err
		}
		w.state.Replies = true
	}
	return keepPortReplies(w.maker, w.state, ports)
}

// keep makes it last, and lets go of what was needed meanwhile.
func (w *wiring) keep() {
	w.undo = nil
	w.close()
}

// listenForRequests makes the socket at which the pod's own helper is found later, and hands it over.
func (w *wiring) listenForRequests(dir string) (*os.File, error) {
	if !w.own {
		return nil, nil
	}
	return listenIn(dir)
}

// The steps of the host's side.

// wire begins what the pod's network needs, while the pod's own side is still busy.
func (run *performance) wire() (err error) {
	run.net.maker, err = perform.StartMaker(run.executor.PIDFD, run.Pod.NetNamespaces(), forNetwork...)
	return errors.Join(err, run.net.awaitEarly())
}

// beginNet opens the ports first of all: what is taken is told before anything is made.
func (run *performance) beginNet() error {
	if !run.Pod.Spec.Net.WantsHelper() {
		return nil
	}
	run.net = newWiring(run.Pod, &pod.NetState{Ports: []network.Port{}, Attachments: []network.Attachment{}})
	run.undo = append(run.undo, run.net.undoAll)
	if err := run.net.listen(run.Pod.Spec.Net.Ports); err != nil {
		return err
	}
	run.net.startEarly(run.facts.Net.Hub)
	return nil
}

func (run *performance) attachNext() error {
	next := run.facts.Net.Networks[len(run.net.state.Attachments)]
	return run.net.attach(run.facts.Net.Hub, run.executor.PID, next, run.Pod.Spec.Net.Endpoints[next.Name])
}

func (run *performance) leadOut() (err error) {
	n := &run.Pod.Spec.Net
	if n.WayOut == spec.WayOutStack {
		return run.net.leadOut(run.facts.Net.IPv6)
	}
	run.net.state.Addresses = []netip.Addr{n.Outbound().Own[0].Addr()} // which both programs are told to give
	if err := run.serve(); err != nil || len(n.Ports) == 0 {           // the helper starts them
		return err
	}
	run.net.maker.Close() // the helper has a copy; ports take more, now that there is an interface
	run.net.maker, err = perform.StartMaker(run.executor.PIDFD, run.Pod.NetNamespaces(), forNetwork...)
	return err
}

func (run *performance) giveAddress() (err error) {
	run.net.state.Addresses, err = giveAddress(run.net.maker, run.facts.Net.IPv6)
	return err
}

func (run *performance) keepReplies() error { return run.net.keepReplies(run.Pod.Spec.Net.Ports) }

func (run *performance) serve() error {
	if run.net.state.Served {
		return nil
	}
	if err := run.net.serve(run.facts.Net.Hub, run.executor.PIDFD); err != nil {
		return err
	}
	return run.net.followHost(run.executor.PID, run.executor.PIDFD)
}

func (run *performance) publish() error {
	if err := run.serve(); err != nil {
		return err
	}
	return run.net.publish()
}

// listenInPod is done while the pod is written down: its folder is there, under another name yet.
func (run *performance) listenInPod(dir string) error {
	if run.net == nil {
		return nil
	}
	if err := files.WriteJSON(dir+"/"+store.NetName, run.net.state); err != nil {
		return err
	}
	listener, err := run.net.listenForRequests(dir)
	if err != nil || listener == nil {
		return err
	}
	defer listener.Close()
	_, err = run.net.helper.ask(&control.Request{Do: control.Listen}, listener)
	return err
}
