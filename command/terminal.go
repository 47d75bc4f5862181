package command

import (
	"context"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/container"
)

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// forwarded are the signals that a joiner with a terminal, and run, pass on. Never SIGCHLD, nor SIGURG, which is
// Go's own; the keyboard's come through the terminal.
var forwarded = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM,
}

// interruptible is a context that ends with the first signal that is to end podsh, after restore; the second one does so at
// once. end lets the first one do it: so whoever waits sees that it was one, as a shell in a loop must.
func interruptible(restore func()) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	for _, sig := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		if !signal.Ignored(sig) { // as nohup(1) does
			signal.Notify(signals, sig)
		}
	}
	first := make(chan unix.Signal, 1)
	go func() {
		sig := <-signals
		restore()
		signal.Reset()
		first <- sig.(unix.Signal)
		cancel()
	}()
	return ctx, func() {
		sig := <-first
		runtime.LockOSThread()
		_ = unix.Tgkill(os.Getpid(), unix.Gettid(), sig)
		os.Exit(128 + int(sig)) // the first process of a pid namespace takes none
	}
}

// joinTerminal runs a command on a terminal of the pod's, and connects that with ours until the command
// ends.
func joinTerminal(joining *container.Joining, args []string) error {
	runtime.LockOSThread() // the joiner dies with this thread
	resize := make(chan os.Signal, 1)
	signal.Notify(resize, unix.SIGWINCH)
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)

	joiner, terminal, err := joining.Start(args)
	if err != nil {
		return err
	}
	if terminal == nil {
		return ended(joiner)
	}
	defer makeRaw(os.Stdin)()
	go copyInput(terminal)
	copied, done := make(chan struct{}), make(chan error, 1)
	go func() {
		_, _ = io.Copy(os.Stdout, terminal) // ends when nobody has the terminal open any more, or our own is gone
		close(copied)
	}()
	go func() { done <- ended(joiner) }()
	for {
		select {
		case <-resize:
			copySize(terminal)
		case s := <-signals:
			_ = joiner.Signal(s) // it has ended: so do we
		case <-copied:
			terminal.Close() // that hangs it up: whoever is left on it gets SIGHUP
			return <-done
		case err := <-done:
			select { // a process that was left behind may keep the terminal open: it is the pod's
			case <-copied:
			case <-time.After(drain):
			}
			return err
		}
	}
}

// drain is how long the command's last words may take from the terminal to ours.
const drain = 100 * time.Millisecond

// copyInput passes the keyboard on. A standard input that is no terminal ends: then the terminal gets its
// end-of-file character, as if it had been typed.
func copyInput(terminal *os.File) {
	_, err := io.Copy(terminal, os.Stdin)
	if err == nil {
		_, _ = terminal.Write([]byte{4}) // ^D; nobody may be there to read it
	}
}

// ended waits for the joiner and passes its status on.
func ended(joiner *os.Process) error {
	state, err := joiner.Wait()
	if err != nil {
		return err
	}
	status := state.Sys().(syscall.WaitStatus)
	switch {
	case status.Signaled():
		return statusError(128 + int(status.Signal()))
	case status.ExitStatus() != 0:
		return statusError(status.ExitStatus())
	}
	return nil
}

func copySize(terminal *os.File) {
	if size, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, size)
	}
}

// makeRaw lets every key through to the pod's terminal, termios(3); the returned function undoes it.
func makeRaw(f *os.File) (restore func()) {
	before, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return func() {}
	}
	raw := *before
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &raw) != nil {
		return func() {}
	}
	return func() { _ = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, before) }
}
