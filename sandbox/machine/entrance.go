package machine

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
)

// Entrances are the namespaces of others that facts name, held open in the same order.
type Entrances []*os.File

// Close lets go of them.
func (e Entrances) Close() {
	for _, file := range e {
		file.Close()
	}
}

// Pod adds those of a pod to the facts.
func (e *Entrances) Pod(f *plan.Facts, pidfd *os.File, entrance plan.Entrance) {
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/ns/user", entrance.Pod.Holder.PID), &st) == nil {
		entrance.UserNS = st.Ino
	}
	*e, f.Enter = append(*e, pidfd), append(f.Enter, entrance)
}

// namespace adds one that is open.
func (e *Entrances) namespace(f *plan.Facts, file *os.File, entrance plan.Entrance) {
	var st unix.Stat_t
	if unix.Fstat(int(file.Fd()), &st) == nil {
		entrance.UserNS = st.Ino
	}
	*e, f.Enter = append(*e, file), append(f.Enter, entrance)
}

// read opens the namespaces of others that the spec names.
func (e *Entrances) read(f *plan.Facts, wanted *spec.Spec, s *store.Store) error {
	for _, name := range wanted.Others() {
		pod, err := s.Find(name)
		if err != nil {
			return err
		}
		pidfd, err := store.Open(pod)
		if err != nil {
			return err
		}
		entrance := plan.Entrance{What: "pod " + pod.Title(), Pod: pod, Cmd: fmt.Sprintf("--target %d", pod.Holder.PID)}
		if userns := pod.Namespaces["user"].Kind; !f.Root && userns != "host" {
			entrance.Flags |= unix.CLONE_NEWUSER
			entrance.Cmd += " --user --preserve-credentials"
		}
		for _, ns := range spec.Namespaces {
			if c := wanted.Namespaces[ns.Name]; c.Kind == "pod" && c.Value == name && entrance.Flags&ns.Flag == 0 {
				entrance.Flags |= ns.Flag
				entrance.Cmd += " " + ns.Nsenter
			}
		}
		e.Pod(f, pidfd, entrance)
	}
	for _, ns := range spec.Namespaces {
		if c := wanted.Namespaces[ns.Name]; c.Kind == "path" {
			if err := e.readPath(f, ns, c.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// readPath opens a namespace by its file, and the user namespace that owns it where that must be entered
// first.
func (e *Entrances) readPath(f *plan.Facts, ns spec.Namespace, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fault.WithHint(err, "--%s path:FILE takes a file such as /proc/PID/ns/%s", ns.Option, ns.Name)
	}
	kind, err := unix.IoctlRetInt(int(file.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != ns.Flag {
		file.Close()
		return fault.New(nil, []string{fmt.Sprintf("--%s path:FILE takes a file such as /proc/PID/ns/%s", ns.Option, ns.Name)},
			"%s is no %s namespace", path, ns.Name)
	}
	if !f.Root && ns.Name != "user" {
		if err := e.readOwner(f, file, path, ns); err != nil {
			file.Close()
			return err
		}
	}
	e.namespace(f, file, plan.Entrance{Flags: ns.Flag, What: path, Cmd: ns.Nsenter + "=" + path})
	return nil
}

func (e *Entrances) readOwner(f *plan.Facts, file *os.File, path string, ns spec.Namespace) error {
	hint := []string{"without root only namespaces can be entered that belong to a user namespace of yours"}
	fd, err := unix.IoctlRetInt(int(file.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return fault.New(nil, hint, "%s: its user namespace is out of reach: %v", path, err)
	}
	owner := os.NewFile(uintptr(fd), path)
	if sameNamespace(owner, "/proc/self/ns/user") {
		return fault.New(nil, hint, "%s: the %s namespace belongs to the user namespace that you are in", path, ns.Name)
	}
	e.namespace(f, owner, plan.Entrance{Flags: unix.CLONE_NEWUSER, What: "the user namespace that owns " + path, Cmd: "--user=" + path})
	return nil
}

func sameNamespace(file *os.File, path string) bool {
	var a, b unix.Stat_t
	return unix.Fstat(int(file.Fd()), &a) == nil && unix.Stat(path, &b) == nil && a.Ino == b.Ino && a.Dev == b.Dev
}
