package command

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
)

// progress shows how far layers have come: a bar for each on a terminal, else a line when one is done. It is told by
// several at a time.
type progress struct {
	mutex  sync.Mutex
	quiet  bool
	bars   bool // standard error is a terminal, and not one without a cursor
	layers []*layerProgress
	drawn  int // lines
	last   time.Time
	warned map[string]bool
}

type layerProgress struct {
	digest     string
	doing      string
	done, size int64
}

// What happens to a layer.
const (
	isWaiting     = "waiting"
	isDownloading = "downloading"
	isDownloaded  = "downloaded"
	isUnpacking   = "unpacking"
	isDone        = "done"
)

func newProgress(quiet bool) *progress {
	term := os.Getenv("TERM")
	return &progress{quiet: quiet, bars: isTerminal(os.Stderr) && term != "" && term != "dumb", warned: map[string]bool{}}
}

// tell takes in an event; doing says of what.
func (p *progress) tell(doing string, event image.Event) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.warn(doing, event.Warning)
	if event.Found != nil {
		for _, layer := range event.Found.Layers {
			p.layer(layer.Digest).size = layer.Size
		}
	}
	// What is downloaded besides layers is small, and is there before they are known.
	if event.Blob != "" && (doing == isUnpacking || p.find(event.Blob) != nil) {
		layer := p.layer(event.Blob)
		if layer.doing, layer.done = doing, event.Done; event.Ready {
			layer.doing = isDownloaded
		}
		if event.Size > 0 {
			layer.size = event.Size
		}
	}
	p.draw(false)
}

// warn tells what was lost in unpacking: each kind once, for many layers lose the same.
func (p *progress) warn(doing, warning string) {
	if doing == isUnpacking {
		kind, _, _ := strings.Cut(warning, ":")
		if p.quiet || p.warned[kind] {
			return
		}
		p.warned[kind] = true
	}
	if warning != "" {
		p.clear()
		warn(fmt.Errorf("%s", warning))
	}
}

// finished says that a layer has been unpacked, if it has.
func (p *progress) finished(digest string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	layer := p.layer(digest)
	worked := layer.doing == isUnpacking // else it was there, or somebody else has done it
	layer.doing = isDone
	if !p.bars && !p.quiet && worked {
		fmt.Fprintf(os.Stderr, "podsh: layer %s: %s, unpacked\n", shortDigest(digest), size(uint64(layer.size)))
	}
	p.draw(true)
}

func shortDigest(digest string) string {
	hex := strings.TrimPrefix(digest, "sha256:")
	return hex[:min(12, len(hex))]
}

func (p *progress) find(digest string) *layerProgress {
	for _, layer := range p.layers {
		if layer.digest == digest {
			return layer
		}
	}
	return nil
}

func (p *progress) layer(digest string) *layerProgress {
	if layer := p.find(digest); layer != nil {
		return layer
	}
	layer := &layerProgress{digest: digest, doing: isWaiting}
	p.layers = append(p.layers, layer)
	return layer
}

// draw draws the bars in place of those that are there, not more than ten times a second. They fit the terminal as it is
// now: what is wider or higher would move up lines that nothing can be drawn over any more.
func (p *progress) draw(now bool) {
	if !p.bars || p.quiet || len(p.layers) == 0 || !now && time.Since(p.last) < 100*time.Millisecond {
		return
	}
	p.last = time.Now()
	rows, columns := terminalSize(os.Stderr)
	lines := p.lines(rows-1, columns-1) // the cursor stands behind them; a line that is full may wrap
	var text strings.Builder
	if up := min(p.drawn, rows-1); up > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", up)
	}
	for _, line := range lines {
		fmt.Fprintf(&text, "\x1b[K%s\n", line)
	}
	text.WriteString("\x1b[J")
	p.drawn = len(lines)
	os.Stderr.WriteString(text.String())
}

// terminalSize is the size of a terminal; one that does not tell is as they were for long.
func terminalSize(f *os.File) (rows, columns int) {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Row == 0 || size.Col == 0 {
		return 24, 80
	}
	return int(size.Row), int(size.Col)
}

// lines are what is to be seen: a line for each layer, or where those are too many, for each at which something happens,
// and one that counts them.
func (p *progress) lines(rows, columns int) []string {
	var lines []string
	if rows < 1 || columns < 1 {
		return nil
	}
	if len(p.layers) <= rows {
		for _, layer := range p.layers {
			lines = append(lines, layer.line(columns))
		}
		return lines
	}
	done := 0
	for _, layer := range p.layers {
		switch {
		case layer.doing == isDone:
			done++
		case layer.doing != isWaiting && len(lines) < rows-1:
			lines = append(lines, layer.line(columns))
		}
	}
	return append(lines, cut(fmt.Sprintf("%d of %d layers are done", done, len(p.layers)), columns))
}

func cut(text string, columns int) string { return text[:min(len(text), columns)] }

const widestBar = 30

// line is a layer in so many columns: with a bar as wide as there is room for, or without one.
func (l *layerProgress) line(columns int) string {
	title := fmt.Sprintf("%s  %-11s  ", shortDigest(l.digest), l.doing)
	bytes := size(uint64(l.size))
	bar := min(widestBar, columns-len(title)-len("[]  ")-len("9999.9M"))
	if bar < 4 {
		return cut(title+bytes, columns)
	}
	full := 0
	if l.doing == isDone || l.doing == isDownloaded {
		full = bar
	} else if l.size > 0 {
		full = int(min(int64(bar), int64(bar)*l.done/l.size))
	}
	return cut(fmt.Sprintf("%s[%-*s]  %s", title, bar, strings.Repeat("=", full), bytes), columns)
}

// clear makes room for a line above the bars.
func (p *progress) clear() {
	if p.bars && p.drawn > 0 {
		rows, _ := terminalSize(os.Stderr)
		fmt.Fprintf(os.Stderr, "\x1b[%dA\x1b[J", min(p.drawn, max(1, rows-1)))
		p.drawn = 0
	}
}

// ignore hears nothing but warnings.
func (p *progress) ignore(event image.Event) {
	p.tell(isUnpacking, image.Event{Warning: event.Warning})
}
