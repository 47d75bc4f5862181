package wire

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
)

// Work is the network's program at work where networks are.
type Work struct {
	conn     *os.File
	executor *nsenter.Executor
	store    *store.Store
	onHost   bool
}

// Remove takes a network away that no pod is on. Leases that are left are those of creations that were killed.
func (w *Work) Remove(n *network.Network) error {
	orphans, err := OrphansOn(w.store, n)
	if err == nil {
		err = w.Release(n, orphans)
	}
	if err == nil {
		_, err = w.do(&control.Work{Do: control.Remove, Network: *n})
	}
	return err
}

// Release gives back what pods have of a network that are gone.
func (w *Work) Release(n *network.Network, leases []lease) error {
	for _, l := range leases {
		if _, err := w.do(&control.Work{Do: control.Detach, Network: *n, Pod: l.pod, Interface: l.link}); err != nil {
			return err
		}
	}
	return nil
}

// lease is who has an address.
type lease struct{ pod, link string }

// OrphansOn are the leases of pods that are not there. Whoever asks has the hub alone, so none is just being made.
func OrphansOn(s *store.Store, n *network.Network) ([]lease, error) {
	entries, err := os.ReadDir(s.Below("leases", n.Name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var orphans []lease
	for _, entry := range entries {
		_, noIP := netip.ParseAddr(entry.Name())
		if _, isMAC := spec.ParseMAC(entry.Name()); noIP != nil && !isMAC {
			continue // the lock, and the last address that was given
		}
		text, err := os.ReadFile(s.Below("leases", n.Name, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		l := lease{}
		l.pod, l.link, _ = strings.Cut(string(text), "\r\n") // as host-local writes it
		if store.IsID(l.pod) && !files.Exists(s.Below("pods", l.pod)) && !slices.Contains(orphans, l) {
			orphans = append(orphans, l)
		}
	}
	return orphans, nil
}

// StartWork starts it in the hub, or on the host, if networks are there.
func StartWork(s *store.Store, hub *pod.Pod) (*Work, error) {
	var pidfd *os.File
	namespaces := 0
	if hub != nil && hub.Own("net") {
		var err error
		if pidfd, err = store.Open(hub); err != nil {
			return nil, err
		}
		defer pidfd.Close()
		namespaces = hub.NetNamespaces()
	}
	conn, executor, err := startProgram(workRole, pidfd, namespaces)
	if err != nil {
		return nil, err
	}
	return &Work{conn, executor, s, namespaces == 0}, nil
}

// do does one thing, and waits until it is done.
func (w *Work) do(job *control.Work, files ...*os.File) (*control.Done, error) {
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
		return nil, fault.WithHint(errors.New(done.Error), "%s", done.Hint)
	case done.Error != "":
		return nil, fault.New(nil, []string{"`podsh network inspect " + job.Network.Name + "` shows how it was made"}, "%s", done.Error)
	}
	return done, nil
}

// fill adds what all work needs to know.
func (w *Work) fill(job *control.Work) error {
	job.Leases, job.Cache = w.store.Below("leases"), w.store.Below("leases", "cache")
	job.PluginPath = pluginPath()
	job.Masquerade = w.onHost
	return os.MkdirAll(job.Leases, 0o700)
}

// Close lets the program end, which is ours to reap.
func (w *Work) Close() {
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
