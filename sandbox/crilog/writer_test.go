package crilog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTornLineIsEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("2026-01-02T03:04:05.000000006Z stdout F to"), 0o600); err != nil {
		t.Fatal(err)
	}
	streams, end := begin(t, path, Options{})
	fmt.Fprintln(streams[0], "next")
	end()
	if out, _ := read(t, path, ReadOptions{Tail: -1}); out != "to\nnext\n" {
		t.Errorf("got %q", out)
	}
}

// What one run of a container left without a newline does not swallow the next run's first line.
func TestRunsAreApart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var since time.Time
	for n := range 3 {
		since = time.Now()
		streams, end := begin(t, path, Options{})
		fmt.Fprintf(streams[0], "prompt %d> ", n)
		end()
	}
	if out, _ := read(t, path, ReadOptions{Tail: -1}); out != "prompt 0> \nprompt 1> \nprompt 2> " {
		t.Errorf("got %q", out)
	}
	for _, o := range []ReadOptions{{Tail: -1, Since: since}, {Tail: 1}} {
		if out, _ := read(t, path, o); out != "prompt 2> " {
			t.Errorf("%+v: got %q", o, out)
		}
	}
}

// A terminal's master gives EIO when nobody has its other side open.
func TestTerminal(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		skip(t, "no terminal: %v", err)
	}
	defer master.Close()
	conn, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	_ = conn.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		skip(t, "no terminal: %v", err)
	}
	fmt.Fprintln(slave, "hello")
	slave.Close()
	path := filepath.Join(t.TempDir(), "log")
	w, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Copy(Stdout, master, nil); err != nil {
		t.Error(err)
	}
	if out, _ := read(t, path, ReadOptions{Tail: -1}); out != "hello\r\n" {
		t.Errorf("got %q", out)
	}
}

func TestRotationAfterKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	// Killed when .1 had become .2.
	for n, text := range map[int]string{0: "d", 2: "c", 3: "b", 4: "a"} {
		line := "2026-01-02T03:04:05.000000006Z stdout F " + text + "\n"
		if err := os.WriteFile(rotated(path, n), []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, want := range []string{"a\nb\nc\nd\n", "b\nc\nd\n"} {
		if err := w.rotate(); err != nil {
			t.Fatal(err)
		}
		if out, _ := read(t, path, ReadOptions{Tail: -1}); out != want {
			t.Errorf("got %q, want %q", out, want)
		}
	}
}

func TestCloseEndsCopy(t *testing.T) {
	for _, blocking := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "log")
		w, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		from, to, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if blocking {
			from = blockingCopy(t, from)
		}
		came, done := make(chan bool, 1), make(chan error)
		go func() { done <- w.Copy(Stderr, from, func([]byte) { came <- true }) }()
		fmt.Fprint(to, "prompt> ")
		<-came
		time.Sleep(10 * time.Millisecond) // so that Copy waits, which is not to be seen from here
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err == nil {
				t.Error("a Copy that gave up said nothing")
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("blocking %v: Copy waits still", blocking)
		}
		if _, errOut := read(t, path, ReadOptions{Tail: -1}); errOut != "prompt> " {
			t.Errorf("got %q", errOut)
		}
		from.Close()
		to.Close()
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, dir, filepath.Join(dir, "none", "log")} {
		if w, err := Open(path, Options{}); err == nil {
			t.Errorf("opened %s", path)
			w.Close()
		}
	}
	if err := Read(context.Background(), filepath.Join(dir, "log"), ReadOptions{Tail: -1}, nil, nil); !os.IsNotExist(err) {
		t.Errorf("read of no log: %v", err)
	}
}
