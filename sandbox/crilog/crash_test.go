package crilog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helperVariable makes the test binary one of the processes below; it names the log.
const helperVariable = "CRILOG_TEST_HELPER"

func TestMain(m *testing.M) {
	kind, path, ok := strings.Cut(os.Getenv(helperVariable), ":")
	if !ok {
		os.Exit(m.Run())
	}
	if err := map[string]func(string) error{"copy": copyStdin, "full": fillDisk, "close": closeFull, "tmpfs": fillTmpfs}[kind](path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// helper is the test binary as a process of that kind.
func helper(t *testing.T, kind, path string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), helperVariable+"="+kind+":"+path)
	cmd.Stderr = os.Stderr
	return cmd
}

// copyStdin logs its standard input, in small files.
func copyStdin(path string) error {
	w, err := Open(path, Options{MaxSize: 1 << 20, MaxFiles: 1000})
	if err != nil {
		return err
	}
	return w.Copy(Stdout, os.Stdin, nil)
}

// After a kill every line is whole and none is missing before the last; the log goes on.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	// The pipe survives its reader, as a container's does when another takes over.
	produced := make(chan struct{})
	go func() {
		b := bufio.NewWriterSize(write, 10000)
		for n := 0; ; n++ {
			if _, err := fmt.Fprintf(b, "#%08d %s\n", n, strings.Repeat("x", n%200)); err != nil {
				return
			}
			if n%1000 == 0 {
				select {
				case produced <- struct{}{}:
				default:
				}
			}
		}
	}()
	defer read.Close()
	for kills := range 4 {
		cmd := helper(t, "copy", path)
		cmd.Stdin = read
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// A thousand lines are 109 kB, and the pipe holds a megabyte: most are in the log.
		for range 15 + kills {
			<-produced
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
	}
	checkNumbered(t, path, 4)
}

// checkNumbered looks whether the lines are those of TestKill, in whole and in order. What a killed
// process had read and not written is missing, so that there is a step for each kill.
func checkNumbered(t *testing.T, path string, kills int) {
	t.Helper()
	out, errOut := read(t, path, ReadOptions{Tail: -1})
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if errOut != "" || len(lines) < 100 {
		t.Fatalf("%d lines, and on stderr %q", len(lines), errOut)
	}
	xs := strings.Repeat("x", 200)
	next, last, steps := 0, -1, 0
	for _, line := range lines {
		number, x, _ := strings.Cut(strings.TrimPrefix(line, "#"), " ")
		n, err := strconv.Atoi(number)
		if err != nil || len(number) != 8 || x != xs[:n%200] {
			if next >= 0 {
				steps++
			}
			next = -1 // cut in two by the kill: nobody knows which comes next
			continue
		}
		if n <= last {
			t.Fatalf("line %d came after line %d", n, last)
		}
		if next >= 0 && n != next {
			steps++
		}
		next, last = n+1, n
	}
	if steps > kills {
		t.Errorf("%d times lines are torn or missing, after %d kills", steps, kills)
	}
}

// fillDisk logs its standard input under a limit of a file's size, which is lifted when the trouble
// has been told. The limit stands for a full disk: write(2) is short, then it is refused.
func fillDisk(path string) error {
	signal.Ignore(unix.SIGXFSZ)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 100_001, Max: old.Max}); err != nil {
		return err
	}
	troubles := 0
	w, err := Open(path, Options{Trouble: func(err error) {
		troubles++
		fmt.Println("trouble:", err)
		time.AfterFunc(100*time.Millisecond, func() { _ = unix.Setrlimit(unix.RLIMIT_FSIZE, &old) })
	}})
	if err != nil {
		return err
	}
	if err := w.Copy(Stdout, os.Stdin, nil); err != nil {
		return err
	}
	if troubles != 1 {
		return fmt.Errorf("%d troubles", troubles)
	}
	return w.Close()
}

func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var want strings.Builder
	for n := range 10000 {
		fmt.Fprintf(&want, "line %d\n", n)
	}
	cmd := helper(t, "full", path)
	cmd.Stdin = strings.NewReader(want.String())
	told, err := cmd.Output()
	if err != nil || !strings.Contains(string(told), "trouble: write "+path+": file too large") {
		t.Fatalf("%v: %q", err, told)
	}
	if out, _ := read(t, path, ReadOptions{Tail: -1}); out != want.String() {
		t.Errorf("got %d bytes, want %d", len(out), want.Len())
	}
}

// closeFull logs its standard input under the same limit, and gives up.
func closeFull(path string) error {
	signal.Ignore(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 100_001, Max: 100_001}); err != nil {
		return err
	}
	var w *Writer
	closed := make(chan error)
	w, err := Open(path, Options{Trouble: func(error) { go func() { closed <- w.Close() }() }})
	if err != nil {
		return err
	}
	if err := w.Copy(Stdout, os.Stdin, nil); !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("a Copy that gave up: %w", err)
	}
	return <-closed
}

// A Writer that is closed while the disk is full takes the torn line back.
func TestCloseWhenFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	line := strings.Repeat("x", 99) + "\n"
	cmd := helper(t, "close", path)
	cmd.Stdin = strings.NewReader(strings.Repeat(line, 2000))
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	out, _ := read(t, path, ReadOptions{Tail: -1})
	if n := len(out) / len(line); n < 600 || out != strings.Repeat(line, n) {
		t.Errorf("got %d bytes, the last of them %q", len(out), out[max(0, len(out)-200):])
	}
}

func BenchmarkCopy(b *testing.B) {
	dir := b.TempDir()
	if shm, err := os.MkdirTemp("/dev/shm", "crilog"); err == nil {
		dir = shm
		defer os.RemoveAll(shm)
	}
	streams, end := begin(b, filepath.Join(dir, "log"), Options{})
	chunk := []byte(strings.Repeat(strings.Repeat("x", 99)+"\n", 640))
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := streams[0].Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	end()
}

func BenchmarkRead(b *testing.B) {
	path := filepath.Join(b.TempDir(), "log")
	streams, end := begin(b, path, Options{})
	text := strings.Repeat(strings.Repeat("x", 99)+"\n", 50000)
	if _, err := io.WriteString(streams[0], text); err != nil {
		b.Fatal(err)
	}
	end()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if err := Read(b.Context(), path, ReadOptions{Tail: -1}, io.Discard, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
