package container

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/disk"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/machine"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
)

// execve(2) says ENOENT of a program that is there, when it is its loader or interpreter that is not, and ENOEXEC of all that it
// does not know. This looks at the program once more, to say which it was.

// attempt is a command that could not be executed.
type attempt struct {
	argv    []string
	path    string // of its environment
	workdir string
	where   string                              // whose root it was looked up in, for people
	open    func(name string) (*os.File, error) // opens a path of that root, O_PATH
	scripts int                                 // that have been looked at
}

// failed says why.
func (a *attempt) failed(errno syscall.Errno) error {
	if errno == unix.E2BIG {
		return fault.New(fault.ErrNotExecutable, []string{"the kernel takes 128 KiB for each of them, and a quarter of the stack's limit (ulimit -s) for all: execve(2)"},
			"the arguments and the environment of %q are too long", a.argv[0])
	}
	name, program := a.find()
	if program != nil {
		defer program.Close()
		if err := a.examine(name, program, errno); err != nil {
			return err
		}
	}
	if errno == unix.ENOENT || errno == unix.ENOTDIR {
		return a.notFound()
	}
	return notExecutable(a.argv[0], errno)
}

// find finds what was to be executed.
func (a *attempt) find() (name string, program *os.File) {
	dirs := strings.Split(a.path, ":")
	switch {
	case a.argv[0] == "":
		return "", nil // each folder of the path would be it
	case strings.Contains(a.argv[0], "/"):
		dirs = []string{""}
	}
	for _, dir := range dirs {
		name := a.absolute(path.Join(dir, a.argv[0]))
		if program, err := a.open(name); err == nil {
			return name, program
		}
	}
	return "", nil
}

func (a *attempt) absolute(name string) string {
	if path.IsAbs(name) {
		return name
	}
	return path.Join("/", a.workdir, name)
}

// notFound says that the program itself is not there.
func (a *attempt) notFound() error {
	command := a.argv[0]
	switch {
	case command == "":
		return fault.New(fault.ErrNotFound, []string{"is a variable of your shell's empty?"}, "no program \"\" in %s: the command is an empty word", a.where)
	case strings.HasPrefix(command, "-"):
		return fault.New(fault.ErrNotFound, []string{"flags stand before the image: what follows it is the command"}, "no program %q in %s", command, a.where)
	case strings.Contains(command, "/"):
		return fault.New(fault.ErrNotFound, []string{"it is looked up in there, and not on the host"}, "no program %q in %s", command, a.where)
	}
	return fault.New(fault.ErrNotFound, []string{"looked for in " + a.path + "; --env PATH=… changes that"}, "no program %q in the PATH of %s", command, a.where)
}

// examine says what is wrong with a program that is there; nil if that is not to be seen.
func (a *attempt) examine(name string, program *os.File, errno syscall.Errno) error {
	var st unix.Stat_t
	if unix.Fstat(int(program.Fd()), &st) != nil {
		return nil
	}
	switch kind := st.Mode & unix.S_IFMT; {
	case kind == unix.S_IFDIR:
		return fault.New(fault.ErrNotExecutable, []string{"a command is a program: " + name + "/NAME"}, "%q is a folder", name)
	case kind != unix.S_IFREG:
		return nil
	case st.Mode&0o111 == 0 && errno == unix.EACCES:
		return fault.New(fault.ErrNotExecutable, []string{"chmod +x, where it comes from"}, "%q is not executable: %v", name, errno)
	}
	file, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", program.Fd()), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil // not ours to read, or somebody has a lease on it
	}
	defer file.Close()
	head := make([]byte, 4096)
	n, _ := file.ReadAt(head, 0) // what could be read is all there is
	head = head[:n]
	switch {
	case n == 0:
		return fault.New(fault.ErrNotExecutable, []string{"was it copied in full?"}, "%q is an empty file", name)
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		return a.examineELF(name, head, errno)
	case bytes.HasPrefix(head, []byte("#!")):
		return a.examineScript(name, head, errno)
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf#!")):
		return fault.New(fault.ErrNotExecutable, []string{`sed -i '1s/^\xef\xbb\xbf//' FILE takes it away`}, "script %q has a byte order mark before its #!", name)
	case errno == unix.ENOEXEC && isText(head):
		return fault.New(fault.ErrNotExecutable, []string{"#!/bin/sh as its first line; or sh " + name + " as the command"}, "%q is a script without a #! line", name)
	}
	return nil
}

// isText says whether the beginning of a file looks like one for people; its last character may be cut.
func isText(head []byte) bool {
	for cut := range utf8.UTFMax {
		if len(head) > cut && utf8.Valid(head[:len(head)-cut]) {
			return !bytes.ContainsRune(head, 0)
		}
	}
	return false
}

// examineScript looks for the interpreter of a script.
func (a *attempt) examineScript(name string, head []byte, errno syscall.Errno) error {
	line, _, _ := bytes.Cut(head[2:], []byte("\n"))
	interpreter, _, _ := strings.Cut(strings.TrimLeft(string(line), " \t"), " ")
	interpreter, _, _ = strings.Cut(interpreter, "\t")
	if strings.HasSuffix(interpreter, "\r") {
		return fault.New(fault.ErrNotFound, []string{`sed -i 's/\r$//' FILE, or dos2unix`}, "script %q has the line ends of Windows: its interpreter is looked for as %q", name, interpreter)
	}
	inner, err := a.open(a.absolute(interpreter))
	if err != nil {
		return fault.New(fault.ErrNotFound, []string{"another #! line, or an image that has it"}, "script %q wants the interpreter %q, which is not in %s", name, interpreter, a.where)
	}
	defer inner.Close()
	if a.scripts++; a.scripts > mostScripts {
		return nil
	}
	if why := a.examine(interpreter, inner, errno); why != nil {
		return fmt.Errorf("script %q: %w", name, why)
	}
	return nil
}

// mostScripts is how many scripts may be each other's interpreter, execve(2).
const mostScripts = 5

// machines are those of elf(5) that Go has a name for.
var machines = map[uint16]string{3: "386", 8: "mips", 20: "ppc", 21: "ppc64le", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64", 258: "loong64"}

// examineELF looks for the loader of a program, and at whose machine it is for: elf(5).
func (a *attempt) examineELF(name string, head []byte, errno syscall.Errno) error {
	if len(head) < 64 {
		return fault.New(fault.ErrNotExecutable, []string{"was it copied in full?"}, "%q is cut off", name)
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[5] == 2 {
		order = binary.BigEndian
	}
	if machine := machines[order.Uint16(head[18:])]; errno == unix.ENOEXEC && machine != "" && machine != runtime.GOARCH {
		return fault.New(fault.ErrNotExecutable, []string{"--platform linux/" + runtime.GOARCH + " takes what is for this machine; qemu-user-static runs others"},
			"%q is a program for %s, and this machine is %s", name, machine, runtime.GOARCH)
	}
	loader := loaderOf(head, order)
	if loader == "" || errno != unix.ENOENT {
		return nil
	}
	if file, err := a.open(loader); err == nil {
		file.Close()
		return nil
	}
	return fault.New(fault.ErrNotFound, []string{"it was built for another C library: an image that has that one, or a program that is linked statically (-static; Go: CGO_ENABLED=0)"},
		"program %q needs the loader %q, which is not in %s", name, loader, a.where)
}

// loaderOf reads the name of the loader, PT_INTERP; "" if there is none near the beginning, where linkers put it.
func loaderOf(head []byte, order binary.ByteOrder) string {
	const interp = 3
	wide := head[4] == 2
	table, size, count := uint64(order.Uint32(head[28:])), order.Uint16(head[42:]), order.Uint16(head[44:])
	if wide {
		table, size, count = order.Uint64(head[32:]), order.Uint16(head[54:]), order.Uint16(head[56:])
	}
	for i := range uint64(count) {
		at := table + i*uint64(size)
		if at > uint64(len(head)) || uint64(len(head))-at < 56 {
			return ""
		}
		entry := head[at:]
		if order.Uint32(entry) != interp {
			continue
		}
		offset, length := uint64(order.Uint32(entry[4:])), uint64(order.Uint32(entry[16:]))
		if wide {
			offset, length = order.Uint64(entry[8:]), order.Uint64(entry[32:])
		}
		if offset > uint64(len(head)) || length > uint64(len(head))-offset {
			return ""
		}
		return string(bytes.TrimRight(head[offset:offset+length], "\x00"))
	}
	return ""
}

// notExecutable says why a program that is there can't be executed: execve(2).
func notExecutable(command string, errno syscall.Errno) error {
	hint := "is it a program for this machine, or a script with a #! line?"
	switch errno {
	case unix.EACCES:
		hint = "chmod +x: is it a file that the user may execute, on a mount without noexec?"
	case unix.EPERM:
		hint = "does it want capabilities that it is not given here (getcap tells)? --cap-add gives them"
	}
	return fault.New(fault.ErrNotExecutable, []string{hint}, "%q can't be executed: %v", command, errno)
}

// execFailed says why the container's command could not be executed.
func execFailed(c *pod.Container, errno syscall.Errno) error {
	env := plan.ContainerEnv(View(c), pod.Identity{}, &spec.JoinSpec{})
	return (&attempt{argv: c.Argv, path: plan.Variable(env, "PATH"), workdir: c.Workdir, where: WhereOf(c), open: func(name string) (*os.File, error) { return openPath(c, name) }}).failed(errno)
}

// openPath opens a path of the container's root, O_PATH, as far as it can be seen while that is not mounted.
func openPath(c *pod.Container, name string) (*os.File, error) {
	for _, v := range View(c).Spec.Volumes {
		rest, err := filepath.Rel(v.Destination, path.Clean(name))
		if err != nil || !filepath.IsLocal(rest) {
			continue
		}
		source, err := unix.Open(v.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil || rest == "." {
			return asFile(source, name, err)
		}
		defer unix.Close(source)
		fd, err := files.OpenIn(source, rest, unix.O_PATH)
		return asFile(fd, name, err)
	}
	return image.OpenIn(disk.Folders(c), name)
}

func asFile(fd int, name string, err error) (*os.File, error) {
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// execFailed says why the command could not be executed.
func (j *Joining) execFailed(errno syscall.Errno) error {
	flags, _ := plan.JoinFlags(j.Pod, j.spec.Only)
	mounts := flags&unix.CLONE_NEWNS != 0
	env := plan.CommandEnv(j.Pod, j.spec, j.who, mounts)
	a := &attempt{argv: j.spec.Command, path: plan.Variable(env, "PATH"), workdir: cmp.Or(j.spec.Workdir, j.Pod.Workdir, j.who.Home), where: fmt.Sprintf("pod %q", j.Pod.Title())}
	switch {
	case !mounts:
		a.where = "this host"
		a.open = func(name string) (*os.File, error) {
			fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
			return asFile(fd, name, err)
		}
		return a.failed(errno)
	case j.Pod.Around != nil:
		a.where = fmt.Sprintf("container %q", j.Pod.Title())
	}
	a.open = func(name string) (*os.File, error) {
		root, err := machine.OpenRoot(j.Pod, j.pidfd)
		if err != nil {
			return nil, err
		}
		defer unix.Close(root)
		fd, err := files.OpenIn(root, name, unix.O_PATH)
		return asFile(fd, name, err)
	}
	return a.failed(errno)
}

// withoutFolders adds to the words about a user that is not known that the file which would name it is a folder.
func withoutFolders(err error, open func(name string) (*os.File, error)) error {
	for _, name := range []string{"/etc/passwd", "/etc/group"} {
		file, openErr := open(name)
		if openErr != nil {
			continue
		}
		var st unix.Stat_t
		isDir := unix.Fstat(int(file.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
		file.Close()
		if isDir {
			return fault.New(fault.ErrInvalid, []string{"--user UID[:GID] needs none; a volume of a file that was not there makes such a folder"}, "%v: %s is a folder", err, name)
		}
	}
	return err
}

// Mismatched finds a volume that is a folder where the root has a file, or the other way round: one can't be mounted on the other.
func Mismatched(volumes []rootfs.Volume, folders []string) error {
	words := map[bool]string{true: "folder", false: "file"}
	for _, v := range volumes {
		var st unix.Stat_t
		if unix.Stat(v.Source, &st) != nil {
			continue
		}
		mode, _, _, err := image.StatIn(folders, v.Destination)
		source, destination := st.Mode&unix.S_IFMT == unix.S_IFDIR, mode&unix.S_IFMT == unix.S_IFDIR
		if err == nil && source != destination {
			return fault.New(fault.ErrInvalid, []string{"a folder goes on a folder, a file on a file"}, "--volume %s:%s: that is a %s, and in the root there is a %s", v.Source, v.Destination, words[source], words[destination])
		}
	}
	return nil
}
