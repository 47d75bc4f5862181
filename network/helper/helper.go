// Package helper is the network's program: the helper, which carries the data of pods as long as they live,
// and the work that is done where networks are. It knows how the parts go together (relay, stack, names,
// link), and refuses to know how it came to be where it stands.
//
// The helper has no capability and no way to any. It listens on no port by itself, enters no namespace and
// makes no socket in one: listeners come from whoever published a port, sockets in a pod's network from that
// pod's Maker. Requests come from podsh, run by the same user; nothing that comes from a pod is a request.
package helper

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/network/names"
	"github.com/podsh/podsh/network/relay"
	"github.com/podsh/podsh/network/stack"
)

// requestFD is where the first requests come from; sandbox/helper.go has it as well.
const requestFD = 5

// Main is the program. It returns its exit status.
func Main(args []string) int {
	unix.CloseOnExec(requestFD)
	conn := os.NewFile(requestFD, "control")
	switch {
	case len(args) == 2 && (args[1] == "helper" || args[1] == "helper+program"):
		return serve(conn, args[1] != "helper")
	case len(args) == 2 && args[1] == "work":
		return workOn(conn)
	}
	return 2
}

// helper is what one process does. All is guarded by its lock but what locks by itself.
type helper struct {
	lock     sync.Mutex
	members  map[string]*member
	rights   atomic.Pointer[map[netip.Addr]rights]
	relay    *relay.Relay // with the first port
	names    *names.Forwarder
	stack    *stack.Stack
	link     atomic.Pointer[network.Outbound] // the addresses of the way out
	resolves []netip.Addr
	program  *program
	stowed   [2]*os.File   // where copies of the ports' sockets are; nil: nowhere
	files    int           // how many descriptors it may have
	glancing sync.Once     // at the host's resolv.conf
	led      bool          // some member leads: then the helper ends with that one, else with the last
	end      chan struct{} // closed: all is over
	ending   sync.Once
}

func serve(conn *os.File, startsPrograms bool) int {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)            // a pod with the host's pid namespace could look into it
	_ = os.WriteFile("/proc/self/comm", []byte("podsh-net"), 0) // what ps shows
	runtime.GOMAXPROCS(max(1, min(4, runtime.NumCPU()/2)))      // what it serves needs processors, too
	debug.SetGCPercent(50)                                      // it idles most of its life: memory counts
	h := &helper{members: map[string]*member{}, end: make(chan struct{})}
	h.allow()
	h.files = raiseFiles()
	if !startsPrograms { // else when it has: they would inherit it
		if err := confine(); err != nil {
			_ = control.Send(conn, &control.Answer{Error: err.Error()}) // in place of the first answer
			return 1
		}
	}
	h.names = names.New(names.Config{HostAddresses: h.hostAddresses, Queries: max(1, h.files/8)})
	go h.take(conn, true)
	<-h.end
	h.program.stop()
	return 0
}

// raiseFiles lets the process have as many descriptors as it may, and returns how many that are.
func raiseFiles() int {
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) != nil {
		return 1024
	}
	files.Cur = files.Max
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &files) // it may always be raised to that
	return int(min(files.Cur, 1<<20))
}

// finish ends the helper.
func (h *helper) finish() { h.ending.Do(func() { close(h.end) }) }

// take answers the requests of one connection. The first connection is from the one who starts the helper: if
// that goes before the helper serves anyone, there is nothing to do.
func (h *helper) take(conn *os.File, first bool) {
	defer conn.Close()
	for {
		request := &control.Request{}
		files, err := control.Receive(conn, request)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = control.Send(conn, &control.Answer{Error: err.Error(), Hint: h.hintFor(err)}) // who sent that may be gone
			}
			break
		}
		answer, err := h.answer(request, files)
		if err != nil {
			answer = &control.Answer{Error: err.Error(), Hint: h.hintFor(err)}
		}
		if control.Send(conn, answer) != nil {
			break
		}
	}
	if h.lock.Lock(); first && len(h.members) == 0 {
		h.finish()
	}
	h.lock.Unlock()
}

func (h *helper) hintFor(err error) string {
	if errors.Is(err, unix.EMFILE) {
		return control.FileLimitHint(uint64(h.files))
	}
	var hint interface{ Hint() string }
	if errors.As(err, &hint) {
		return hint.Hint()
	}
	return filesHint(err)
}

// filesHint says what to do where nothing more can be opened.
func filesHint(err error) string {
	if errors.Is(err, unix.EMFILE) {
		return "raise `ulimit -n` before the first pod of the helper is made: it has what podsh had then"
	}
	return ""
}

// answer does what a request asks for. The files are its own to close.
func (h *helper) answer(request *control.Request, files []*os.File) (*control.Answer, error) {
	h.lock.Lock()
	defer h.lock.Unlock()
	do, ok := map[string]func(*control.Request, []*os.File) (*control.Answer, error){
		control.Hello: hello, control.Serve: h.serveMember, control.Update: h.updateMember, control.Forget: h.forget,
		control.WayOut: h.wayOut, control.Publish: h.publish, control.Unpublish: h.unpublish,
		control.Resolve: h.resolve, control.Stow: h.stow, control.Listen: h.listen, control.Status: h.status, control.Follow: h.follow,
	}[request.Do]
	if !ok {
		control.Close(files)
		return nil, fmt.Errorf("the helper of another version of podsh: %q is not known here", request.Do)
	}
	return do(request, files)
}

// hello answers: that says it all.
func hello(_ *control.Request, files []*os.File) (*control.Answer, error) {
	control.Close(files)
	return &control.Answer{}, nil
}

// listen takes requests from a socket as well, of the same user's processes.
func (h *helper) listen(_ *control.Request, files []*os.File) (*control.Answer, error) {
	if len(files) != 1 {
		control.Close(files)
		return nil, errors.New("no socket to listen on")
	}
	go h.accept(files[0])
	return &control.Answer{}, nil
}

func (h *helper) accept(listener *os.File) {
	defer listener.Close()
	if unix.SetNonblock(int(listener.Fd()), true) != nil {
		return
	}
	pollable := os.NewFile(uintptr(listener.Fd()), listener.Name())
	raw, err := pollable.SyscallConn()
	if err != nil {
		return
	}
	for {
		fd, aerr := -1, error(nil)
		err := raw.Read(func(listening uintptr) bool {
			fd, _, aerr = unix.Accept4(int(listening), unix.SOCK_CLOEXEC)
			return aerr != unix.EAGAIN
		})
		if err != nil || slices.Contains([]error{unix.ENOTSOCK, unix.EINVAL, unix.EOPNOTSUPP}, aerr) { // nobody listens there
			return
		}
		if aerr != nil { // EMFILE, say: it may pass
			time.Sleep(100 * time.Millisecond)
			continue
		}
		conn := os.NewFile(uintptr(fd), "control")
		peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || int(peer.Uid) != os.Geteuid() {
			conn.Close()
			continue
		}
		go h.take(conn, false)
	}
}

// status says how it goes: of one pod's ports, or of all.
func (h *helper) status(request *control.Request, files []*os.File) (*control.Answer, error) {
	control.Close(files)
	report := &control.Report{Ports: []control.PortReport{}}
	for id, m := range h.members {
		if request.Pod != "" && request.Pod != id {
			continue
		}
		if m.sockets.lost.Load() {
			report.Warnings = append(report.Warnings, "nothing makes sockets in pod "+id+" any more: remove it, and create it again")
		}
		if m.followed != nil && m.followed.failed != nil {
			report.Warnings = append(report.Warnings, m.followed.failed.Error())
		}
		for _, p := range m.ports {
			c := p.relay.Counters()
			report.Ports = append(report.Ports, control.PortReport{Pod: id, Port: p.port, Connections: c.Connections,
				Open: c.Open, Refused: c.Refused, BytesIn: c.BytesIn, BytesOut: c.BytesOut})
		}
	}
	report.Resolves = h.resolves
	h.reportRelay(report, request.Pod)
	if h.stack != nil {
		c := h.stack.Counters()
		report.WayOut = &control.WayReport{Connections: c.Opened, Open: uint64(c.Connections), Refused: c.Refused, BytesIn: c.Fetched, BytesOut: c.Sent}
		for _, use := range h.stack.Uses(request.Pod) {
			report.Limits = append(report.Limits, control.Limit{Name: "outbound " + use.Name, Pod: use.Own, All: use.All})
		}
		if err := stack.CanPing(); err != nil {
			report.Warnings = append(report.Warnings, err.Error())
		}
	}
	if h.stack != nil || len(h.resolves) > 0 {
		pod, all := h.names.Queries(request.Pod)
		report.Limits = append(report.Limits, control.Limit{Name: "names asked for", Pod: pod, All: all})
		if n := h.names.Starved(); n > 0 {
			report.Warnings = append(report.Warnings, fmt.Sprintf("questions for names that found no descriptor: %d; there were more than `ulimit -n` said where the pod was made", n))
		}
		servers, err := h.names.Upstream()
		if err != nil {
			report.Warnings = append(report.Warnings, err.Error())
		}
		for _, server := range servers {
			report.Resolver = append(report.Resolver, server.String())
		}
	}
	return &control.Answer{Status: report}, nil
}

// fewFiles are too few descriptors for a server that is used by many.
const fewFiles = 4096

// reportRelay says how the limits of published ports are used.
func (h *helper) reportRelay(report *control.Report, pod string) {
	if h.relay == nil {
		return
	}
	var sockets relay.Sockets
	if m := h.members[pod]; m != nil {
		sockets = m.sockets
	}
	for _, use := range h.relay.Uses(sockets) {
		report.Limits = append(report.Limits, control.Limit{Name: "published " + use.Name, Pod: use.Pod, All: use.All})
	}
	if h.files < fewFiles {
		limits := h.limits()
		report.Warnings = append(report.Warnings, fmt.Sprintf("at most %d connections and %d flows of UDP at a time through published ports: %s",
			limits.Connections, limits.Sessions, control.FileLimitHint(uint64(h.files))))
	}
}

// limits are what published ports may have open at a time. A helper whose pods are several has two of them at
// least before the first port: the one that leads, and whose port it is.
func (h *helper) limits() relay.Limits { return relay.LimitsFor(h.files, len(h.members) > 1) }

// samePort says whether two ports are the same one.
func samePort(a, b network.Port) bool {
	return a.HostIP == b.HostIP && a.HostPort == b.HostPort && a.Protocol == b.Protocol
}
