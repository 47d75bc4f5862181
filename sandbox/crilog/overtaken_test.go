package crilog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// skip skips a test that this machine can't run, unless it has to.
func skip(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("PODSH_MUST_WORK") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// A reader that is overtaken says how much it missed, and goes on.
func TestFollowOvertaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	line := func(n int) string { return fmt.Sprintf("2026-01-02T03:04:05.000000006Z stdout F %d\n", n) }
	w, err := Open(path, Options{MaxFiles: 2, MaxSize: int64(len(line(0)))})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if ok := firstKnown(t); !ok {
		skip(t, "no extended attributes here")
	}
	slow, out := io.Pipe() // a reader that is stuck until someone takes its first line
	var errOut bytes.Buffer
	wake, done := make(chan struct{}), make(chan error, 1)
	if err := w.store([]byte(line(0))); err != nil {
		t.Fatal(err)
	}
	go func() {
		done <- Read(t.Context(), path, ReadOptions{Tail: -1, Follow: true, Wake: wake}, out, &errOut)
		out.Close()
	}()
	if _, err := slow.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	for n := 1; n < 6; n++ { // 1 to 3 are rotated away
		if err := w.store([]byte(line(n))); err != nil {
			t.Fatal(err)
		}
	}
	close(wake)
	rest, err := io.ReadAll(slow)
	if err != nil || <-done != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%d bytes of the log were rotated away unread\n", 3*len(line(0)))
	if string(rest) != "\n4\n5\n" || errOut.String() != want {
		t.Errorf("got %q and %q, want %q", rest, errOut.String(), want)
	}
}

func firstKnown(t *testing.T) bool {
	file, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	setFirst(file, 12345)
	first, ok := firstOf(file)
	return ok && first == 12345
}

// What an earlier run knew about the log holds after the next Open.
func TestOpenGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	late := "2099-01-02T03:04:05.000000006Z stdout F late\n"
	if err := os.WriteFile(path, []byte(late), 0o600); err != nil {
		t.Fatal(err)
	}
	streams, end := begin(t, path, Options{})
	fmt.Fprintln(streams[1], "next")
	end()
	text, err := os.ReadFile(path)
	if want := late + late[:31] + "stderr F next\n"; err != nil || string(text) != want {
		t.Errorf("got %q, want %q: the clock went back", text, want)
	}
}

// A line that is being written when Read begins is given whole, whatever its stream is.
func TestTailOfUnfinished(t *testing.T) {
	const stamp = "2026-01-02T03:04:05.000000006Z "
	for tail, want := range []string{"new\n", "new\n"} {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, []byte(stamp+"stdout F old\n2026-01"), 0o600); err != nil {
			t.Fatal(err)
		}
		wake, done := make(chan struct{}), make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		read, errOut := io.Pipe()
		asked := make(chan bool, 1)
		o := ReadOptions{Tail: tail, Follow: true, Wake: wake, Ended: func() bool {
			select {
			case asked <- true:
			default:
			}
			return false
		}}
		go func() { done <- Read(ctx, path, o, io.Discard, errOut); errOut.Close() }()
		<-asked // the beginning was found
		file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(file, stamp[7:]+"stderr F new\n")
		file.Close()
		close(wake)
		got, _ := io.ReadAll(read)
		if err := <-done; err != nil || string(got) != want {
			t.Errorf("tail %d: got %q, want %q: %v", tail, got, want, err)
		}
		cancel()
	}
}

const ballast = 600 << 10

// fillTmpfs logs its standard input on a file system of 1 MiB, and removes the ballast when told of
// the trouble.
func fillTmpfs(path string) error {
	dir := filepath.Dir(path)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		fmt.Println("refused:", err)
		return nil
	}
	if err := os.WriteFile(path+"-ballast", make([]byte, ballast), 0o600); err != nil {
		return err
	}
	troubles := 0
	w, err := Open(path, Options{Trouble: func(err error) {
		troubles++
		fmt.Fprintln(os.Stderr, "trouble:", err)
		time.AfterFunc(100*time.Millisecond, func() { _ = os.Remove(path + "-ballast") })
	}})
	if err != nil {
		return err
	}
	if err := w.Copy(Stdout, os.Stdin, nil); err != nil {
		return err
	}
	if err := w.Close(); err != nil || troubles != 1 {
		return fmt.Errorf("%d troubles: %w", troubles, err)
	}
	return Read(context.Background(), path, ReadOptions{Tail: -1}, os.Stdout, os.Stderr)
}

// A disk that is really full loses no line and ends nobody.
func TestTmpfsFull(t *testing.T) {
	dir := t.TempDir()
	var want strings.Builder
	for n := range 10000 {
		fmt.Fprintf(&want, "line %d\n", n)
	}
	var told strings.Builder
	cmd := helper(t, "tmpfs", filepath.Join(dir, "log"))
	cmd.Stdin, cmd.Stderr = strings.NewReader(want.String()), &told
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.Output()
	if refused := strings.HasPrefix(string(out), "refused:") || errors.Is(err, unix.EPERM); refused {
		skip(t, "no tmpfs in a user namespace: %v %s", err, out)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, told.String())
	}
	if string(out) != want.String() || !strings.Contains(told.String(), "no space left on device") {
		t.Errorf("got %d bytes, want %d; told %q", len(out), want.Len(), told.String())
	}
}
