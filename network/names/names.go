// Package names is the name server that pods ask. It knows which pod may see which names, and how a question
// about any other name gets to the host's own servers and back. It listens on sockets it is handed and refuses
// to know in which namespace they lie, who made them, or what a pod is beyond its names and addresses; search
// lists are the business of the resolver in the pod.
//
// Two kinds of text reach it from outside, and it trusts neither. A pod is known by its source address alone,
// may be hostile, and gets FORMERR or silence for what is no query. A server's answer counts only if it comes
// from the server's address to the port that asked, and repeats id and question, RFC 5452.
package names

import (
	"cmp"
	"context"
	"net/netip"
	"sync/atomic"

	"github.com/podsh/podsh/network/share"
)

// HostName is the name of the host that runs the pods; DockerHostName is the one that docker gives it.
const (
	HostName       = "host.containers.internal"
	DockerHostName = "host.docker.internal"
)

// Domain is where pods are looked up before the domains of the host: POD.Domain is POD. Nothing else is there.
const Domain = "dns.podsh"

// Bounds of what pods can make the forwarder hold at one time, together. Each has a share, so that no pod can take the
// names of the others away.
const (
	maxQueries     = 1024 // waiting for a server; beyond: SERVFAIL
	maxConnections = 64   // TCP; beyond: closed
)

// What is read of the host's files, in bytes. Lists that block advertisements have megabytes.
const (
	maxResolvConf = 64 << 10
	maxHosts      = 8 << 20
)

// ttl is how long a pod's name may be remembered, in seconds: pods come and go.
const ttl = 1

// Config is what a Forwarder needs to know of the host.
type Config struct {
	// ResolvConf is the resolv.conf(5) that names the servers; empty: /etc/resolv.conf.
	ResolvConf string
	// Hosts is the hosts(5) whose names members with Hosts may ask for; empty: /etc/hosts.
	Hosts string
	// HostAddresses are those at which the pod at from reaches the host, the meaning of its names. If it is nil,
	// or there are none, the names do not exist.
	HostAddresses func(from netip.Addr) []netip.Addr
	// Queries is how many may wait for a server at a time, each with a descriptor; at most, and if it is 0, 1024.
	Queries int
}

// Member is a pod that may ask.
type Member struct {
	ID    string
	Names []string // what others call it; the first is the one its addresses stand for
	// Aliases are more names, by network: there alone it is called so.
	Aliases map[string][]string
	// Networks holds the pod's own addresses on each network it is on, by which it is known when it asks. Pods
	// see each other's names on the networks they share; on the network "" none sees another.
	Networks map[string][]netip.Addr
	DNS      []netip.Addr // servers to ask, port 53, in place of the host's
	Internal bool         // nothing that it asks leaves the host: other names do not exist
	Hosts    bool         // the names of the host's /etc/hosts exist for it
}

// Forwarder answers the queries of pods. Its methods may be called at the same time.
type Forwarder struct {
	directory     directory
	resolv        changing[settings]
	hosts         changing[hosts]
	hostAddresses func(netip.Addr) []netip.Addr
	queries       *share.Limit[string]
	connections   *share.Limit[string]
	health        health
	starved       atomic.Uint64
	closed        context.Context
	close         context.CancelFunc
}

// New returns a forwarder without members. It reads nothing before it is asked.
func New(config Config) *Forwarder {
	f := &Forwarder{
		resolv: changing[settings]{path: cmp.Or(config.ResolvConf, "/etc/resolv.conf"), most: maxResolvConf, parse: parse,
			value: settings{timeout: defaultTimeout, attempts: defaultAttempts}},
		hosts:         changing[hosts]{path: cmp.Or(config.Hosts, "/etc/hosts"), most: maxHosts, parse: parseHosts},
		hostAddresses: config.HostAddresses,
		queries:       share.New[string](maxQueries),
		connections:   share.New[string](maxConnections),
	}
	if n := config.Queries; n > 0 && n < maxQueries {
		f.queries = share.New[string](n)
	}
	if f.hostAddresses == nil {
		f.hostAddresses = func(netip.Addr) []netip.Addr { return nil }
	}
	f.closed, f.close = context.WithCancel(context.Background())
	return f
}

// Set adds a member, or replaces the one with its ID. An address that two members claim is the later one's.
func (f *Forwarder) Set(member Member) { f.directory.set(member) }

// Remove forgets the member with this ID, if there is one.
func (f *Forwarder) Remove(id string) {
	f.directory.remove(id)
	f.queries.Forget(id)
	f.connections.Forget(id)
}

// Queries says how many questions wait for a server: of a pod, and of all.
func (f *Forwarder) Queries(id string) (pod, all share.Use) { return f.queries.Of(id), f.queries.All() }

// Close ends all that waits for a server or a pod: the calls of Serve return nil.
func (f *Forwarder) Close() { f.close() }

// Upstream returns the host's name servers as its resolv.conf has them now, in the order in which they are
// asked. A file that is missing or names none means 127.0.0.1, resolv.conf(5). One that can't be read is an
// error, beside the servers of its last good reading.
func (f *Forwarder) Upstream() ([]netip.AddrPort, error) {
	settings, err := f.resolv.read()
	return settings.servers, err
}

// Starved counts the questions that could not be asked, for this process may open no more.
func (f *Forwarder) Starved() uint64 { return f.starved.Load() }

// ResolvConf returns the host's resolv.conf as it is now; as it was, if it can't be read.
func (f *Forwarder) ResolvConf() string {
	settings, _ := f.resolv.read() // Upstream tells of the error
	return settings.text
}

// Answer answers one message of the pod at from; tcp says how it came. It returns nil if the message deserves
// no answer, or when ctx or the forwarder ends first. It may take as long as the servers may: a caller that
// reads one message after the other calls it in a goroutine each.
func (f *Forwarder) Answer(ctx context.Context, query []byte, from netip.Addr, tcp bool) []byte {
	r, answer := f.receive(query, from, tcp)
	if r == nil {
		return answer
	}
	return f.forward(ctx, r)
}
