// Package control is how podsh talks to the helper of a pod's network: a request and its answer, each one
// packet of JSON, with descriptors beside it. It knows the words, and not what is done about them.
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
)

// What a request asks for.
const (
	Hello     = "hello"     // whether it is there
	Serve     = "serve"     // Member; descriptors: its holder's pidfd, and a Maker in its network namespace
	Update    = "update"    // Member: what is known of it has changed
	WayOut    = "way out"   // Way, for the member Pod; descriptors: a tun device
	Resolve   = "resolve"   // answer names at Address; descriptors: sockets there, of datagrams and listening
	Forget    = "forget"    // Pod
	Publish   = "publish"   // Ports of Pod; descriptors: for each, Sockets of them
	Unpublish = "unpublish" // Ports of Pod
	Listen    = "listen"    // take requests from a socket, too; a descriptor: that
	Status    = "status"
)

// Request is what is asked of a helper.
type Request struct {
	Do      string         `json:"do"`
	Pod     string         `json:"pod,omitempty"`
	Member  *Member        `json:"member,omitempty"`
	Way     *Way           `json:"way,omitempty"`
	Ports   []network.Port `json:"ports,omitempty"`
	Sockets []int          `json:"sockets,omitempty"`
	Address netip.Addr     `json:"address"`
}

// Member is a pod that a helper serves.
type Member struct {
	ID        string                  `json:"id"`
	Names     []string                `json:"names,omitempty"`
	Lead      bool                    `json:"lead,omitempty"` // the helper ends with it
	Addresses []netip.Addr            `json:"addresses"`      // its own, that published ports are dialled at
	Networks  map[string][]netip.Addr `json:"networks,omitempty"`
	Internal  bool                    `json:"internal,omitempty"` // it is on internal networks alone
	DNS       []netip.Addr            `json:"dns,omitempty"`      // servers of its own, else the host's
	HostPorts *HostPorts              `json:"host_ports,omitempty"`
}

// HostPorts are what a pod may reach on the host's loopback; none listed are all.
type HostPorts []uint16

// Reaches says whether a port is among them; nil has none.
func (h *HostPorts) Reaches(port uint16) bool {
	if h == nil {
		return false
	}
	for _, p := range *h {
		if p == port {
			return true
		}
	}
	return len(*h) == 0
}

// Way is how a pod gets out.
type Way struct {
	Program string `json:"program,omitempty"` // pasta or slirp4netns; else the helper does it
	MTU     int    `json:"mtu"`
}

// Answer is what a helper says to a request.
type Answer struct {
	Error  string  `json:"error,omitempty"`
	Hint   string  `json:"hint,omitempty"`
	Status *Report `json:"status,omitempty"`
}

// What work on networks does.
const (
	Attach = "attach" // Pod to Network; a descriptor: its network namespace. Done has the Attachment
	Detach = "detach" // the Attachment of Pod; a descriptor: its network namespace, or none where that is gone
	Remove = "remove" // Network
)

// Work is what is asked of the network's program where networks are: on the host, or in a hub.
type Work struct {
	Do         string              `json:"do"`
	Network    network.Network     `json:"network"`
	Leases     string              `json:"leases"` // folder
	Cache      string              `json:"cache"`  // folder
	PluginPath []string            `json:"plugin_path,omitempty"`
	Masquerade bool                `json:"masquerade,omitempty"`
	Pod        string              `json:"pod,omitempty"` // its id
	Interface  string              `json:"interface,omitempty"`
	Default    bool                `json:"default,omitempty"` // the way out is to lead over it
	Attachment *network.Attachment `json:"attachment,omitempty"`
}

// Done is how it went.
type Done struct {
	Error      string              `json:"error,omitempty"`
	Hint       string              `json:"hint,omitempty"`
	Attachment *network.Attachment `json:"attachment,omitempty"`
}

// Report is how a helper is doing.
type Report struct {
	Ports    []PortReport `json:"ports"`
	WayOut   *WayReport   `json:"way_out,omitempty"`
	Resolver []string     `json:"resolver,omitempty"` // the host's name servers
	Resolves []netip.Addr `json:"resolves,omitempty"` // where names are answered, on sockets
	Warnings []string     `json:"warnings,omitempty"`
}

// PortReport counts what went through a published port since the helper started.
type PortReport struct {
	Pod string `json:"pod"`
	network.Port
	Connections uint64 `json:"connections"`
	Open        uint64 `json:"open"`
	Refused     uint64 `json:"refused"` // the pod did not take them
	BytesIn     uint64 `json:"bytes_in"`
	BytesOut    uint64 `json:"bytes_out"`
}

// WayReport counts what went out.
type WayReport struct {
	Connections uint64 `json:"connections"`
	Open        uint64 `json:"open"`
	Refused     uint64 `json:"refused"`
	BytesIn     uint64 `json:"bytes_in"`
	BytesOut    uint64 `json:"bytes_out"`
}

// MostSockets is how many descriptors one packet takes, unix(7).
const MostSockets = 253

const largest = 1 << 17 // bytes of a packet

// Pair makes two connected ends.
func Pair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control"), nil
}

// Ask sends a request and waits for its answer.
func Ask(conn *os.File, request *Request, files ...*os.File) (*Answer, error) {
	if err := Send(conn, request, files...); err != nil {
		return nil, err
	}
	answer := &Answer{}
	if _, err := Receive(conn, answer); err != nil {
		return nil, fmt.Errorf("answer of the network's helper: %w", err)
	}
	return answer, nil
}

// Send sends one packet.
func Send(conn *os.File, value any, files ...*os.File) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if len(text) > largest {
		return fmt.Errorf("a packet of %d bytes: more than %d", len(text), largest)
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, file := range files {
			fds[i] = int(file.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	for {
		err = unix.Sendmsg(int(conn.Fd()), text, rights, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("sendmsg: %w", err)
	}
	return nil
}

// Receive takes one packet in, and the descriptors that came with it. At the end it returns io.EOF.
func Receive(conn *os.File, value any) ([]*os.File, error) {
	text := make([]byte, largest)
	control := make([]byte, unix.CmsgSpace(4*MostSockets))
	var n, oob, flags int
	var err error
	for {
		n, oob, flags, _, err = unix.Recvmsg(int(conn.Fd()), text, control, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("recvmsg: %w", err)
	}
	files, err := received(control[:oob])
	switch {
	case err != nil:
	case n == 0:
		err = io.EOF
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errors.New("a packet was cut off")
	default:
		err = json.Unmarshal(text[:n], value)
	}
	if err != nil {
		Close(files)
		return nil, err
	}
	return files, nil
}

func received(control []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // another kind of message brings none
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

// Close closes descriptors that nobody has a use for; nil is none.
func Close(files []*os.File) {
	for _, file := range files {
		_ = file.Close() // closed already is as good
	}
}
