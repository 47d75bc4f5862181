package command

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/ask"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
)

func Attach() *cli.Command {
	return &cli.Command{
		Name:      "attach",
		Usage:     "see what a container writes from now on, and type into its terminal",
		ArgsUsage: "CONTAINER",
		Description: `Connects this terminal with that of a container (podsh run -t), until it ends,
ctrl-p ctrl-q is typed or this terminal is closed. Several can be attached at a time.
A signal ends podsh attach, and does nothing to the container. Of a container without
a terminal the output is shown, and Ctrl-C leaves it alone; one that was started
with -i gets what comes through a pipe. podsh logs shows what
it wrote before.

Examples:
  podsh attach web/shell
  podsh attach web/app`,
		Action: attach,
	}
}

func attach(c *cli.Context) error {
	container, err := oneContainer(c)
	if err != nil {
		return err
	}
	if container.Spec.TTY {
		return attachTerminal(container, func(a *ask.Attachment) (*ask.Session, error) { return ask.Attach(container, a) })
	}
	a := &ask.Attachment{Out: os.Stdout, Err: os.Stderr}
	if container.Spec.Stdin && !isTerminal(os.Stdin) {
		a.In = os.Stdin
	}
	session, err := ask.Attach(container, a)
	if err != nil {
		return err
	}
	defer session.Close()
	return exitWith(session.Wait())
}

// exitWith makes a command's status podsh's own.
func exitWith(status int, err error) error {
	if err == nil && status != 0 {
		return statusError(status)
	}
	return err
}

// attachTerminal connects this terminal with a container's, until that ends or the keys are typed that detach.
func attachTerminal(container *pod.Container, how func(*ask.Attachment) (*ask.Session, error)) error {
	stream, theirs, err := proc.Stream()
	if err != nil {
		return err
	}
	defer stream.Close()
	resize := make(chan os.Signal, 1)
	signal.Notify(resize, unix.SIGWINCH)
	signal.Ignore(unix.SIGPIPE) // a standard output that is closed is an error like others
	keyboard := isTerminal(os.Stdin)
	restore := makeRaw(os.Stdin)        // what is typed meanwhile is for the container
	stop, end := interruptible(restore) // the keyboard's signals go through the terminal, and others are for us: we go, the container stays
	a := &ask.Attachment{Stream: theirs, Term: os.Getenv("TERM")}
	if size, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ); err == nil {
		a.Rows, a.Cols = size.Row, size.Col
	}
	session, err := how(a)
	theirs.Close()
	if err != nil {
		restore()
		return err
	}
	defer session.Close()
	detached, ended, hungUp := passOn(stream, keyboard)
	if a.Rows > 0 {
		_ = session.Resize(a.Rows, a.Cols) // of a container that ran before
	}
	for {
		select {
		case <-resize:
			if size, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ); err == nil {
				_ = session.Resize(size.Row, size.Col) // it has ended: so do we
			}
		case <-stop.Done():
			end()
		case <-hungUp:
			restore()
			return nil
		case <-detached:
			restore()
			fmt.Fprintf(os.Stderr, "\npodsh: detached; `podsh attach %s` comes back\n", container.Title())
			return nil
		case <-ended:
			restore()
			stream.Close()
			return exitWith(session.Wait())
		}
	}
}

// passOn passes on what is typed and what is shown, and closes one of the channels when there is no more of it.
func passOn(stream *os.File, keyboard bool) (detached, ended, hungUp chan struct{}) {
	detached, ended, hungUp = make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		if typed(os.Stdin, stream, keyboard) {
			close(detached)
		}
	}()
	go func() {
		out := &output{}
		_, _ = io.Copy(out, stream)
		if out.err != nil { // then the container has not ended
			close(hungUp)
		} else {
			close(ended)
		}
	}()
	return detached, ended, hungUp
}

// output is our standard output, and remembers why it takes no more.
type output struct{ err error }

func (o *output) Write(text []byte) (int, error) {
	n, err := os.Stdout.Write(text)
	o.err = cmp.Or(o.err, err)
	return n, err
}

// The keys that detach, ctrl-p and ctrl-q, as docker has them.
const detachFirst, detachSecond = 0x10, 0x11

// typed passes on what is typed, until the keys that detach, or until the terminal is closed: then it says so. A standard
// input that is none ends: then the container's terminal gets its end-of-file character, as if it had been typed.
func typed(from io.Reader, to io.Writer, isTerminal bool) (detach bool) {
	buffer := make([]byte, 4096)
	held := false // the first key has been typed: nobody has seen it yet
	for {
		n, err := from.Read(buffer)
		var pass []byte
		for _, key := range buffer[:n] {
			if held && key == detachSecond {
				return true
			}
			if held {
				pass = append(pass, detachFirst)
			}
			if held = key == detachFirst; !held {
				pass = append(pass, key)
			}
		}
		if err != nil && isTerminal { // a raw one has no other end
			return true
		}
		if errors.Is(err, io.EOF) {
			pass = append(pass, 4) // ^D
		}
		if _, writeErr := to.Write(pass); writeErr != nil || err != nil {
			return false
		}
	}
}
