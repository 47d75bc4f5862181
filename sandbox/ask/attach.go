package ask

import (
	"errors"
	"os"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/store"
)

// Attachment is what someone who attaches gives: the stream of a terminal, or the files that output goes to.
type Attachment struct {
	Stream     *os.File // of a terminal
	In         *os.File // nil: no input is passed
	Out, Err   *os.File
	Rows, Cols uint16
	Term       string
}

// Files are the descriptors that the supervisor is handed, and whether it is to read from the first.
func (a *Attachment) Files() (files []*os.File, input bool) {
	switch {
	case a == nil:
		return nil, false
	case a.Stream != nil:
		return []*os.File{a.Stream}, true
	case a.In != nil:
		return []*os.File{a.In, a.Out, a.Err}, true
	}
	return []*os.File{a.Out, a.Err}, false
}

// Session is a connection to the supervisor of a container that one is attached to.
type Session struct {
	Conn      *os.File
	Container string
}

// Close detaches.
func (s *Session) Close() { s.Conn.Close() }

// Resize tells the size of our terminal.
func (s *Session) Resize(rows, columns uint16) error {
	_, err := TalkTo(s.Conn, &SuperviseRequest{Do: AskResize, Container: s.Container, Rows: rows, Columns: columns})
	return err
}

// Wait waits until the container has ended, and returns its status.
func (s *Session) Wait() (int, error) {
	answer, err := TalkTo(s.Conn, &SuperviseRequest{Do: AskWait, Container: s.Container})
	if err != nil {
		return 0, fault.New(nil, []string{"podsh ps -c shows what has become of it"}, "the supervisor went away: %v", err)
	}
	return answer.ExitCode, answer.AsError()
}

// Attach shows what a container writes from now on.
func Attach(c *pod.Container, a *Attachment) (*Session, error) {
	files, input := a.Files()
	request := &SuperviseRequest{Do: AskAttach, Container: c.ID, Input: input}
	conn, err := DialSupervisor(c.In)
	if errors.Is(err, ErrNoSupervisor) {
		return nil, notSupervised(c)
	}
	if err != nil {
		return nil, err
	}
	answer, err := TalkTo(conn, request, files...)
	if err == nil {
		err = answer.AsError()
	}
	if proc.HungUp(err) || err == nil && answer.Ended {
		err = notSupervised(c)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Session{conn, c.ID}, nil
}

// notSupervised says why nobody can attach.
func notSupervised(c *pod.Container) error {
	state, err := store.StateOf(c)
	if err != nil {
		return err
	}
	if state.Status == pod.Up {
		return fault.New(nil, []string{"with `podsh run -d` or -t others can attach"}, "container %q runs in the foreground of another podsh, which has its output", c.Title())
	}
	return fault.New(fault.ErrExited, []string{"podsh start " + c.Title()}, "container %q does not run", c.Title())
}
