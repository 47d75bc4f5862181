package container

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/proc"
)

// stops are the signals by which a terminal stops who uses it.
var stops = []unix.Signal{unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU}

// Notify asks for the signals that a running command gets besides those that end podsh while it is made: to stop and go on, and
// the real-time ones. A terminal sends SIGTTIN and SIGTTOU once more at each try to use it, so who uses one leaves them to it.
func (s *Streams) Notify(signals chan<- os.Signal) {
	var asked []os.Signal
	for _, sig := range slices.Concat(stops, []unix.Signal{unix.SIGCONT}) {
		if !signal.Ignored(sig) && (sig == unix.SIGTSTP || sig == unix.SIGCONT || !s.copiesTerminal()) {
			asked = append(asked, sig)
		}
	}
	for sig := unix.Signal(proc.RtMin); sig <= proc.RtMax; sig++ {
		asked = append(asked, sig)
	}
	signal.Notify(signals, asked...)
}

// copiesTerminal says whether podsh itself reads from a terminal, or writes to one that stops who does so in the background.
func (s *Streams) copiesTerminal() bool {
	terminal := func(c *copied, flags uint32) bool {
		t, err := unix.IoctlGetTermios(int(c.file.Fd()), unix.TCGETS)
		return err == nil && t.Lflag&flags == flags
	}
	return s.input != nil && terminal(s.input, 0) || slices.ContainsFunc(s.outputs, func(c *copied) bool { return terminal(c, unix.TOSTOP) })
}

// Pass passes a signal on. One that is to stop is the command's where that has a use for it and no key was pressed; else it
// stops the command and podsh, by a signal that a session without a terminal takes notice of.
func (s *Started) Pass(sig unix.Signal) {
	switch {
	case slices.Contains(stops, sig) && (sig == unix.SIGTSTP && inForeground() || !takes(s.process.PID, sig)):
		s.signalGroup(unix.SIGSTOP)
		_ = unix.Kill(os.Getpid(), unix.SIGSTOP) // that can't fail
	case sig == unix.SIGCONT:
		s.signalGroup(sig)
	default:
		_ = s.Signal(sig) // it has ended: so do we
	}
}

// signalGroup sends a signal to the command's process group; before Linux 6.9 to the command alone.
func (s *Started) signalGroup(sig unix.Signal) {
	if unix.PidfdSendSignal(int(s.pidfd.Fd()), sig, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP) != nil {
		_ = s.Signal(sig) // it has ended: so do we
	}
}

// inForeground says whether podsh is in the foreground of its terminal, whose keys may have sent a signal.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == syscall.Getpgrp()
}

// takes says whether a process has a use of its own for a signal, or none at all: proc_pid_status(5). Who waits for it has it
// blocked.
func takes(pid int, sig unix.Signal) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // it has ended: then it takes nothing
	var sets uint64
	for line := range bytes.Lines(text) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if name := string(name); name == "SigBlk" || name == "SigIgn" || name == "SigCgt" {
			set, _ := strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64) // the kernel's own number
			sets |= set
		}
	}
	return sets>>(sig-1)&1 == 1
}
