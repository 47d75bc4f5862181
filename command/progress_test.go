package command

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// screen is a terminal as pull needs one: it counts what has left it at the top.
type screen struct {
	rows, columns int
	lines         []string // from the top; the cursor is in one of them
	row           int
	scrolled      int
}

func (s *screen) line() *string {
	for len(s.lines) <= s.row {
		s.lines = append(s.lines, "")
	}
	return &s.lines[s.row]
}

func (s *screen) newline() {
	if s.row++; s.row == s.rows {
		s.row--
		s.scrolled++
		s.lines = append(s.lines[1:], "")
	}
}

// write knows the escapes that progress has: up, to the end of the line, and of the screen, all from a line's start.
func (s *screen) write(text string) error {
	column := 0
	for text != "" {
		before, rest, escaped := strings.Cut(text, "\x1b[")
		for _, c := range strings.ReplaceAll(before, "\r", "") {
			switch {
			case c == '\n':
				s.newline()
				column = 0
				continue
			case column == s.columns:
				s.newline()
				column = 0
			}
			line := s.line()
			*line = (*line)[:min(len(*line), column)] + string(c)
			column++
		}
		if !escaped {
			return nil
		}
		at := strings.IndexAny(rest, "AJK")
		if at < 0 {
			return fmt.Errorf("an escape that is none: %q", rest)
		}
		switch rest[at] {
		case 'A':
			up, err := strconv.Atoi(rest[:at])
			if err != nil {
				return err
			}
			s.row = max(0, s.row-up)
		case 'J':
			*s.line() = (*s.line())[:min(len(*s.line()), column)]
			s.lines = s.lines[:s.row+1]
		case 'K':
			*s.line() = (*s.line())[:min(len(*s.line()), column)]
		}
		text = rest[at+1:]
	}
	return nil
}

// openTerminal makes a terminal of that size, pty(7).
func openTerminal(t *testing.T, rows, columns uint16) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	number, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(ours.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}
	if err != nil {
		t.Fatal(err)
	}
	if theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// onTerminal runs podsh with its standard error on a terminal, and returns what it wrote there.
func (h *home) onTerminal(t *testing.T, term string, rows, columns uint16, args ...string) string {
	t.Helper()
	ours, theirs := openTerminal(t, rows, columns)
	cmd := h.command(args...)
	cmd.Stderr = theirs
	if term != "" {
		cmd.Env = append(cmd.Env, "TERM="+term)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	text, _ := io.ReadAll(ours) // EIO is the end of it: pty(7), when the last of the other side is closed
	if err := cmd.Wait(); err != nil {
		t.Fatalf("podsh %v: %v\n%s", args, err, text)
	}
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

// manyLayers makes a layout with an image of so many layers.
func manyLayers(t *testing.T, n int) string {
	t.Helper()
	l := &testLayout{t.TempDir()}
	if err := os.MkdirAll(filepath.Join(l.dir, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.dir, "oci-layout"), []byte(`{"imageLayoutVersion": "1.0.0"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	var files []string
	for i := range n {
		file := filepath.Join(l.dir, fmt.Sprint(i, ".tar"))
		if err := os.WriteFile(file, tarOfFolder(t, fmt.Sprint("folder-", i)), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	if err := l.image("many", `{"Cmd": ["sh"]}`, func(path string) string { return path }, files); err != nil {
		t.Fatal(err)
	}
	return l.dir
}

// TestProgress: what is drawn while layers come fits the terminal, whatever its size: it scrolls nothing away.
func TestProgress(t *testing.T) {
	const layers = 12
	layout := manyLayers(t, layers)
	for _, size := range []struct{ rows, columns uint16 }{{24, 80}, {24, 65}, {24, 40}, {24, 20}, {5, 80}, {3, 30}, {2, 80}, {1, 10}, {60, 200}, {0, 0}} {
		t.Run(fmt.Sprintf("%dx%d", size.columns, size.rows), func(t *testing.T) {
			h := newTestHome(t)
			text := h.onTerminal(t, "xterm", size.rows, size.columns, "image", "pull", "oci:"+layout)
			s := &screen{rows: int(size.rows), columns: int(size.columns)}
			if s.rows == 0 {
				s.rows, s.columns = 24, 80
			}
			if err := s.write(text); err != nil {
				t.Fatal(err)
			}
			if s.scrolled > 0 {
				t.Errorf("%d lines are scrolled away", s.scrolled)
			}
			last := strings.Join(s.lines, "\n")
			if strings.Contains(last, isDownloading) || strings.Contains(last, isWaiting) {
				t.Errorf("at the end:\n%s", last)
			}
			full := s.rows > layers
			if full && strings.Count(last, "done") != layers || !full && s.rows > 1 && !strings.Contains(last, cut("12 of 12 layers are done", s.columns-1)) {
				t.Errorf("at the end:\n%s", last)
			}
		})
	}
	for _, term := range []string{"", "dumb"} {
		h := newTestHome(t)
		text := h.onTerminal(t, term, 24, 80, "image", "pull", "oci:"+layout)
		if strings.Contains(text, "\x1b") || strings.Count(text, ", unpacked\n") != layers {
			t.Errorf("TERM=%q: %q", term, text)
		}
		if text = h.onTerminal(t, "xterm", 24, 80, "image", "pull", "-q", "oci:"+layout); text != "" {
			t.Errorf("-q: %q", text)
		}
	}
}
