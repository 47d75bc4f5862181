package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/podsh/podsh/image"
)

// progress shows how far layers have come: a bar for each on a terminal, else a line when one is done. It is told by
// several at a time.
type progress struct {
	mutex  sync.Mutex
	quiet  bool
	bars   bool // standard error is a terminal
	layers []*layerProgress
	drawn  int // lines
	last   time.Time
}

type layerProgress struct {
	digest     string
	doing      string // downloading, unpacking, done
	done, size int64
}

func newProgress(quiet bool) *progress {
	return &progress{quiet: quiet, bars: isTerminal(os.Stderr) && os.Getenv("TERM") != "dumb"}
}

// tell takes in an event; doing says of what.
func (p *progress) tell(doing string, event image.Event) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if event.Warning != "" {
		p.clear()
		warn(fmt.Errorf("%s", event.Warning))
	}
	if event.Found != nil {
		for _, layer := range event.Found.Layers {
			p.layer(layer.Digest).size = layer.Size
		}
	}
	if event.Blob != "" {
		layer := p.layer(event.Blob)
		layer.doing, layer.done = doing, event.Done
		if event.Size > 0 {
			layer.size = event.Size
		}
	}
	p.draw(false)
}

// finished says that a layer has been unpacked, if it has.
func (p *progress) finished(digest string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	layer := p.layer(digest)
	worked := layer.doing == "unpacking" // else it was there, or somebody else has done it
	layer.doing = "done"
	if !p.bars && !p.quiet && worked {
		fmt.Fprintf(os.Stderr, "podsh: layer %s: %s, unpacked\n", shortDigest(digest), size(uint64(layer.size)))
	}
	p.draw(true)
}

func shortDigest(digest string) string {
	hex := strings.TrimPrefix(digest, "sha256:")
	return hex[:min(12, len(hex))]
}

func (p *progress) layer(digest string) *layerProgress {
	for _, layer := range p.layers {
		if layer.digest == digest {
			return layer
		}
	}
	layer := &layerProgress{digest: digest, doing: "waiting"}
	p.layers = append(p.layers, layer)
	return layer
}

const barWidth = 30

// draw draws the bars in place of those that are there, not more than ten times a second.
func (p *progress) draw(now bool) {
	if !p.bars || p.quiet || !now && time.Since(p.last) < 100*time.Millisecond {
		return
	}
	p.last = time.Now()
	var text strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", p.drawn)
	}
	for _, layer := range p.layers {
		full := 0
		if layer.doing == "done" {
			full = barWidth
		} else if layer.size > 0 {
			full = int(min(barWidth, barWidth*layer.done/layer.size))
		}
		fmt.Fprintf(&text, "\x1b[K%s  %-11s  [%-*s]  %s\n", shortDigest(layer.digest), layer.doing, barWidth, strings.Repeat("=", full), size(uint64(layer.size)))
	}
	p.drawn = len(p.layers)
	os.Stderr.WriteString(text.String())
}

// clear makes room for a line above the bars.
func (p *progress) clear() {
	if p.bars && p.drawn > 0 {
		fmt.Fprintf(os.Stderr, "\x1b[%dA\x1b[J", p.drawn)
		p.drawn = 0
	}
}
