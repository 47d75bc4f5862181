package helper

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/seccomp"
)

// program is another's way out, which the user asked for by name. It ends with the helper.
type program struct {
	cmd   *exec.Cmd
	ended chan error
	said  *bytes.Buffer

	lock sync.Mutex
	over bool // its number may be another's from now on
}

// programError is why it does not work, and what to do.
type programError struct{ why, hint string }

func (e *programError) Error() string { return e.why }
func (e *programError) Hint() string  { return e.hint }

// readyWithin is how long such a program has to set the pod's interface up.
const readyWithin = 10 * time.Second

func startProgram(way *control.Way, m *member) (*program, error) {
	name := way.Program
	pid, err := pidOf(m.holder)
	if err != nil {
		return nil, err
	}
	command := append(network.Pasta(way.Link), "--foreground", strconv.Itoa(pid))
	if name == "slirp4netns" {
		userns := fmt.Sprintf("/proc/%d/ns/user", pid)
		if sameFile(userns, "/proc/self/ns/user") {
			userns = ""
		}
		command = network.Slirp(way.Link, fmt.Sprintf("/proc/%d/ns/net", pid), userns)
	}
	p := &program{cmd: exec.Command(way.Path, command[1:]...), ended: make(chan error, 1), said: &bytes.Buffer{}}
	p.cmd.Stderr = p.said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig is the thread's: it stays until the program has ended
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.ended <- p.wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	if err := p.ready(m, way.Link.Own[0].Addr()); err != nil {
		p.stop()
		if said := strings.TrimSpace(p.said.String()); said != "" {
			err = fmt.Errorf("%s: %s", name, said)
		}
		return nil, &programError{err.Error(), "does it work by itself? " + strings.Join(command, " ") + "; or take podsh's own: --net outbound"}
	}
	return p, nil
}

// ready waits until the pod has the interface, and it is up. Neither program can tell that in the same way as
// the other, so the pod's network is asked.
func (p *program) ready(m *member, own netip.Addr) error {
	socket, err := m.sockets.plain()
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	deadline := time.After(readyWithin)
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		request, err := unix.NewIfreq(network.Tun)
		if err != nil {
			return err
		}
		if unix.IoctlIfreq(socket, unix.SIOCGIFADDR, request) == nil {
			if ip, err := request.Inet4Addr(); err == nil && [4]byte(ip) == own.As4() {
				return nil
			}
		}
		select {
		case err := <-p.ended:
			p.ended <- err
			return fmt.Errorf("it ended: %w", err)
		case <-deadline:
			return fmt.Errorf("no interface within %v", readyWithin)
		case <-look.C:
		}
	}
}

// plain makes a socket to ask the pod's network with.
func (s *sockets) plain() (int, error) {
	fds, err := s.maker.Make([]nsenter.Call{{Nr: unix.SYS_SOCKET, Args: []any{unix.AF_INET, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC, 0}}}, 0)
	if err != nil {
		return -1, fmt.Errorf("socket in the pod: %w", err)
	}
	return fds[0], nil
}

func sameFile(a, b string) bool {
	one, err1 := os.Stat(a)
	two, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(one, two)
}

// pidOf reads the pid behind a pidfd, proc_pid_fdinfo(5).
func pidOf(pidfd *os.File) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd.Fd()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pid:"); ok {
			if pid, err := strconv.Atoi(strings.TrimSpace(rest)); err == nil && pid > 0 {
				return pid, nil
			}
		}
	}
	return 0, errors.New("the pod has ended")
}

// end calls then when the program has ended.
func (p *program) end(then func()) {
	err := <-p.ended
	p.ended <- err
	then()
}

// wait waits for its end: its number is its own until then, waitid(2).
func (p *program) wait() error {
	var err error = unix.EINTR
	for err == unix.EINTR {
		err = unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	}
	p.lock.Lock()
	p.over = true
	p.lock.Unlock()
	return cmp.Or(p.cmd.Wait(), err)
}

// stop ends the program and waits for that.
func (p *program) stop() {
	if p == nil {
		return
	}
	p.lock.Lock()
	if !p.over {
		_ = unix.Kill(p.cmd.Process.Pid, unix.SIGKILL) // what it would refuse is not there
	}
	p.lock.Unlock()
	<-p.ended
	p.ended <- nil
}

// rules are what a helper may do besides that has started a program: end it, and wait for that.
func (p *program) rules() []seccomp.Rule {
	return append(seccomp.Calls(unix.SYS_WAIT4, unix.SYS_WAITID), seccomp.Rule{Call: unix.SYS_KILL,
		Where: []seccomp.Check{seccomp.Is(0, uint32(p.cmd.Process.Pid)), seccomp.Is(1, uint32(unix.SIGKILL))}})
}
