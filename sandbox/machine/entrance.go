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

// readEntrances opens the namespaces of others that the spec names.
func readEntrances(f *plan.Facts, wanted *spec.Spec, s *store.Store) error {
	for _, name := range wanted.Others() {
		pod, err := s.Find(name)
		if err != nil {
			return err
		}
		pidfd, err := store.Open(pod)
		if err != nil {
			return err
		}
		e := plan.Entrance{File: pidfd, What: "pod " + pod.Title(), Pod: pod, Cmd: fmt.Sprintf("--target %d", pod.Holder.PID)}
		if userns := pod.Namespaces["user"].Kind; !f.Root && userns != "host" {
			e.Flags |= unix.CLONE_NEWUSER
			e.Cmd += " --user --preserve-credentials"
		}
		for _, ns := range spec.Namespaces {
			if c := wanted.Namespaces[ns.Name]; c.Kind == "pod" && c.Value == name && e.Flags&ns.Flag == 0 {
				e.Flags |= ns.Flag
				e.Cmd += " " + ns.Nsenter
			}
		}
		f.Enter = append(f.Enter, e)
	}
	for _, ns := range spec.Namespaces {
		if c := wanted.Namespaces[ns.Name]; c.Kind == "path" {
			if err := readPath(f, ns, c.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// readPath opens a namespace by its file, and the user namespace that owns it where that must be entered
// first.
func readPath(f *plan.Facts, ns spec.Namespace, path string) error {
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
		if err := readOwner(f, file, path, ns); err != nil {
			file.Close()
			return err
		}
	}
	f.Enter = append(f.Enter, plan.Entrance{File: file, Flags: ns.Flag, What: path, Cmd: ns.Nsenter + "=" + path})
	return nil
}

func readOwner(f *plan.Facts, file *os.File, path string, ns spec.Namespace) error {
	hint := []string{"without root only namespaces can be entered that belong to a user namespace of yours"}
	fd, err := unix.IoctlRetInt(int(file.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return fault.New(nil, hint, "%s: its user namespace is out of reach: %v", path, err)
	}
	owner := os.NewFile(uintptr(fd), path)
	if sameNamespace(owner, "/proc/self/ns/user") {
		return fault.New(nil, hint, "%s: the %s namespace belongs to the user namespace that you are in", path, ns.Name)
	}
	f.Enter = append(f.Enter, plan.Entrance{File: owner, Flags: unix.CLONE_NEWUSER, What: "the user namespace that owns " + path, Cmd: "--user=" + path})
	return nil
}

func sameNamespace(file *os.File, path string) bool {
	var a, b unix.Stat_t
	return unix.Fstat(int(file.Fd()), &a) == nil && unix.Stat(path, &b) == nil && a.Ino == b.Ino && a.Dev == b.Dev
}
