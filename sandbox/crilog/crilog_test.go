package crilog

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// begin opens a log and starts a Copy of each stream. end closes the streams and waits.
func begin(t testing.TB, path string, o Options) (streams [2]*os.File, end func()) {
	t.Helper()
	w, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	var copies sync.WaitGroup
	for _, s := range Streams {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		streams[s] = write
		copies.Go(func() {
			defer read.Close()
			if err := w.Copy(s, read, nil); err != nil {
				t.Error(err)
			}
		})
	}
	return streams, func() {
		streams[0].Close()
		streams[1].Close()
		copies.Wait()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

func read(t testing.TB, path string, o ReadOptions) (out, errOut string) {
	t.Helper()
	var a, b bytes.Buffer
	if err := Read(t.Context(), path, o, &a, &b); err != nil {
		t.Fatal(err)
	}
	return a.String(), b.String()
}

// noise is text with lines of all lengths, among them empty ones and some around the longest.
func noise(r *rand.Rand, size int) []byte {
	var b []byte
	for len(b) < size {
		n := r.IntN(200)
		switch r.IntN(20) {
		case 0:
			n = maxText - 2 + r.IntN(5)
		case 1:
			n = r.IntN(5 * maxText)
		case 2:
			n = 0
		case 3:
			if r.IntN(10) == 0 {
				n = 1 << 20
			}
		}
		for range n {
			// All bytes but the newline, NUL and \r among them.
			c := byte(r.IntN(256))
			if c == '\n' {
				c = '\r'
			}
			b = append(b, c)
		}
		b = append(b, '\n')
	}
	return b[:size]
}

func TestRoundTrip(t *testing.T) {
	for seed := range uint64(2) {
		r := rand.New(rand.NewPCG(seed, 1))
		path := filepath.Join(t.TempDir(), "log")
		o := Options{MaxSize: 200 << 10, MaxFiles: 100}
		streams, end := begin(t, path, o)
		var texts [2][]byte
		var writes sync.WaitGroup
		for s := range texts {
			texts[s] = noise(r, 2<<20)
			r := rand.New(rand.NewPCG(seed, uint64(s+2)))
			writes.Go(func() {
				for text := texts[s]; len(text) > 0; {
					n := min(len(text), 1+r.IntN(40000))
					if _, err := streams[s].Write(text[:n]); err != nil {
						t.Error(err)
						return
					}
					text = text[n:]
				}
			})
		}
		writes.Wait()
		end()
		out, errOut := read(t, path, ReadOptions{Tail: -1})
		if out != string(texts[0]) || errOut != string(texts[1]) {
			t.Fatalf("seed %d: read %d and %d bytes, wrote %d and %d, or others", seed, len(out), len(errOut), len(texts[0]), len(texts[1]))
		}
		checkFiles(t, path, o)
	}
}

// checkFiles looks at the files as any other reader of the format would.
func checkFiles(t *testing.T, path string, o Options) {
	t.Helper()
	files, err := openAll(path)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(files)
	if len(files) < 2 {
		t.Errorf("%d files: nothing was rotated", len(files))
	}
	var last time.Time
	for _, file := range files {
		text, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(text)) > o.MaxSize {
			t.Errorf("%s has %d bytes", file.Name(), len(text))
		}
		for raw := range bytes.Lines(text) {
			line, ok := Parse(raw)
			if !ok || len(line.Text) > maxText || len(line.Stamp) != len(stampLayout) || raw[len(raw)-1] != '\n' {
				t.Fatalf("%s has %.80q", file.Name(), raw)
			}
			if line.Time.Before(last) {
				t.Fatalf("%s goes back from %v to %v", file.Name(), last, line.Time)
			}
			last = line.Time
		}
	}
}

func TestPieces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	streams, end := begin(t, path, Options{})
	long := strings.Repeat("x", maxText)
	fmt.Fprintf(streams[0], "%s\n%sy\n\nend", long, long)
	end()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for raw := range bytes.Lines(text) {
		line, ok := Parse(raw)
		got = append(got, fmt.Sprint(ok, line.Partial, len(line.Text)))
	}
	// The last as containerd writes it.
	want := "[true false 16384 true true 16384 true false 1 true false 0 true true 3]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
