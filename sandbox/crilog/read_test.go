package crilog

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// blockingCopy is a file as one gets it from another process.
func blockingCopy(t *testing.T, file *os.File) *os.File {
	t.Helper()
	defer file.Close()
	conn, err := file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	err = conn.Control(func(old uintptr) {
		if fd, err = unix.Dup(int(old)); err == nil {
			err = unix.SetNonblock(fd, false)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "blocking")
}

// sample is a log of ten lines over three files, a second between two lines, odd ones to stderr.
func sample(t *testing.T) (path string, at func(n int) time.Time) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "log")
	at = func(n int) time.Time { return time.Date(2026, 1, 2, 3, 4, n, 6, time.UTC) }
	var files [3]strings.Builder
	for n := range 10 {
		fmt.Fprintf(&files[2-n/4], "%s %s F %d\n", at(n).Format(stampLayout), Streams[n%2], n)
	}
	for n := range files {
		if err := os.WriteFile(rotated(path, n), []byte(files[n].String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path, at
}

func TestReadOptions(t *testing.T) {
	path, at := sample(t)
	for name, test := range map[string]struct {
		o           ReadOptions
		out, errOut string
	}{
		"all":         {ReadOptions{Tail: -1}, "02468", "13579"},
		"none":        {ReadOptions{}, "", ""},
		"one":         {ReadOptions{Tail: 1}, "", "9"},
		"two files":   {ReadOptions{Tail: 3}, "8", "79"},
		"three files": {ReadOptions{Tail: 7}, "468", "3579"},
		"as many":     {ReadOptions{Tail: 10}, "02468", "13579"},
		"too many":    {ReadOptions{Tail: 11}, "02468", "13579"},
		"since":       {ReadOptions{Tail: -1, Since: at(5)}, "68", "579"},
		"until":       {ReadOptions{Tail: -1, Until: at(5)}, "024", "135"},
		"both":        {ReadOptions{Tail: -1, Since: at(2), Until: at(3)}, "2", "3"},
		"tail since":  {ReadOptions{Tail: 4, Since: at(8)}, "8", "9"},
		"tail until":  {ReadOptions{Tail: 2, Until: at(4)}, "4", "3"},
	} {
		out, errOut := read(t, path, test.o)
		out, errOut = strings.ReplaceAll(out, "\n", ""), strings.ReplaceAll(errOut, "\n", "")
		if out != test.out || errOut != test.errOut {
			t.Errorf("%s: got %q and %q, want %q and %q", name, out, errOut, test.out, test.errOut)
		}
	}
	out, _ := read(t, path, ReadOptions{Tail: 2, Timestamps: true})
	if out != "2026-01-02T03:04:08.000000006Z 8\n" {
		t.Errorf("got %q", out)
	}
}

func TestTailOfPieces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	const stamp = "2026-01-02T03:04:05.000000006Z "
	log := stamp + "stdout F before\n" + stamp + "stdout P a\n" + stamp + "stderr F between\n" + stamp + "stdout P b\n" + stamp + "stdout F c\n"
	if err := os.WriteFile(path, []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errOut := read(t, path, ReadOptions{Tail: 1, Timestamps: true}); out != stamp+"abc\n" || errOut != "" {
		t.Errorf("got %q and %q", out, errOut)
	}
	if out, errOut := read(t, path, ReadOptions{Tail: 2}); out != "abc\n" || errOut != "between\n" {
		t.Errorf("got %q and %q", out, errOut)
	}
}

func TestTailOfMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	streams, end := begin(t, path, Options{MaxSize: 300 << 10})
	want := make([]string, 20000)
	for n := range want {
		want[n] = fmt.Sprintf("line %d\n", n)
	}
	if _, err := io.WriteString(streams[0], strings.Join(want, "")); err != nil {
		t.Fatal(err)
	}
	end()
	for _, n := range []int{1, 2, 1000, 5001, 7777, 19999, 20000} {
		if out, _ := read(t, path, ReadOptions{Tail: n}); out != strings.Join(want[len(want)-n:], "") {
			t.Errorf("tail %d: got %d bytes", n, len(out))
		}
	}
}

func TestMalformed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log := "no\n\n2026-01-02T03:04:05Z stdout F yes\n2026-02-30T03:04:05.000000000Z stdout F no\nend"
	if err := os.WriteFile(path, []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(log, "2026-01-02T03:04:05Z stdout F ", "", 1)
	if out, _ := read(t, path, ReadOptions{Tail: -1}); out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

// A slow reader of a log that is rotated under it gets every line once.
func TestFollowRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	streams, end := begin(t, path, Options{MaxSize: 8 << 10, MaxFiles: 1000})
	var ended sync.Mutex
	isEnded, wake := false, make(chan struct{}, 1)
	var out, errOut strings.Builder
	done := make(chan error)
	go func() {
		done <- Read(t.Context(), path, ReadOptions{
			Tail: -1, Follow: true, Wake: wake,
			Ended: func() bool { ended.Lock(); defer ended.Unlock(); return isEnded },
		}, &out, &errOut)
	}()
	var want [2]strings.Builder
	for n := range 20000 {
		line := fmt.Sprintf("line %d\n", n)
		want[n%2].WriteString(line)
		if _, err := io.WriteString(streams[n%2], line); err != nil {
			t.Fatal(err)
		}
	}
	end()
	ended.Lock()
	isEnded = true
	ended.Unlock()
	wake <- struct{}{}
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(8 * time.Second):
		t.Fatal("Read does not end")
	}
	if out.String() != want[0].String() || errOut.String() != want[1].String() {
		t.Errorf("got %d and %d bytes, want %d and %d, or others", out.Len(), errOut.Len(), want[0].Len(), want[1].Len())
	}
	if _, err := os.Stat(rotated(path, 3)); err != nil {
		t.Error("nothing was rotated:", err)
	}
}

// Follow sees a log that is made later, new lines at once, and ends with its context.
func TestFollowLive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read, write := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Read(ctx, path, ReadOptions{Tail: -1, Follow: true}, write, io.Discard) }()
	streams, end := begin(t, path, Options{MaxFiles: 1, MaxSize: 40})
	defer end()
	for n := range 5 {
		want := fmt.Sprintf("line %d\n", n)
		fmt.Fprint(streams[0], want)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(read, got); err != nil || string(got) != want {
			t.Fatalf("got %q, want %q: %v", got, want, err)
		}
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Read does not end")
	}
}

// Closing Wake ends following, once all is read.
func TestFollowWakeClosed(t *testing.T) {
	path, _ := sample(t)
	wake := make(chan struct{})
	close(wake)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var out strings.Builder
	if err := Read(ctx, path, ReadOptions{Tail: 4, Follow: true, Wake: wake}, &out, io.Discard); err != nil {
		t.Error(err)
	}
	if out.String() != "6\n8\n" || ctx.Err() != nil {
		t.Errorf("got %q, %v", out.String(), ctx.Err())
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"2026-01-02T03:04:05.000000006Z stdout F text\n", "2026-01-02T03:04:05.1+02:00 stderr P:x ", "x", "",
		"2026-02-29T03:04:05.000000006Z stdout F text", "2026-01-02T03:04:05.000000006Z stdout F",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		line, ok := Parse(raw)
		if !ok {
			return
		}
		when, err := time.Parse(time.RFC3339Nano, string(line.Stamp))
		if err != nil || !when.Equal(line.Time) {
			t.Fatalf("%q is %v, not %v: %v", line.Stamp, when, line.Time, err)
		}
		if !strings.HasSuffix(strings.TrimSuffix(string(raw), "\n"), " "+string(line.Text)) {
			t.Fatalf("%q ends %q", raw, line.Text)
		}
	})
}
