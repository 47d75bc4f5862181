// Package crilog writes and reads a container's log in Kubernetes' CRI format, so that whatever
// collects logs from a node can read it: one line of output a line, with its time, its stream and
// whether more of it follows. It owns the format, the files' rotation and the way to follow them; it
// does not know containers, nor when one ends: its callers say so.
//
//	2026-01-02T03:04:05.000000006Z stdout F text
package crilog

import (
	"bytes"
	"time"
)

// A Stream is one of a container's two outputs.
type Stream int

// The streams, in the order of their descriptors.
const (
	Stdout Stream = iota
	Stderr
)

// Streams lists both, stdout first.
var Streams = [2]Stream{Stdout, Stderr}

var streamNames = [2]string{"stdout", "stderr"}

// String is the stream's name in the log.
func (s Stream) String() string {
	if s < 0 || int(s) >= len(streamNames) {
		return "unknown"
	}
	return streamNames[s]
}

const (
	// maxText is the longest text of one line in the log; kubelet's default as well.
	maxText = 16 << 10
	// stampLayout has nine digits always, so that stamps sort as text does.
	stampLayout = "2006-01-02T15:04:05.000000000Z"
)

// A Line is one line of a log. Its slices point into what was parsed.
type Line struct {
	Stamp   []byte // the time as it was written
	Time    time.Time
	Stream  Stream
	Partial bool // the line goes on in the stream's next one
	Text    []byte
}

// Parse reads a line, with or without its newline. It is false for what is not in the format.
func Parse(line []byte) (Line, bool) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	var l Line
	var ok bool
	var word []byte
	if l.Stamp, line, ok = bytes.Cut(line, []byte(" ")); !ok {
		return Line{}, false
	}
	if l.Time, ok = parseStamp(l.Stamp); !ok {
		return Line{}, false
	}
	if word, line, ok = bytes.Cut(line, []byte(" ")); !ok {
		return Line{}, false
	}
	switch string(word) {
	case "stdout":
		l.Stream = Stdout
	case "stderr":
		l.Stream = Stderr
	default:
		return Line{}, false
	}
	if word, l.Text, ok = bytes.Cut(line, []byte(" ")); !ok {
		return Line{}, false
	}
	// The format allows more tags behind the first, with colons between them; none is defined yet.
	word, _, _ = bytes.Cut(word, []byte(":"))
	switch string(word) {
	case "P":
		l.Partial = true
	case "F":
	default:
		return Line{}, false
	}
	return l, true
}

// parseStamp reads our own form without time.Parse, which would take most of a reader's time.
func parseStamp(b []byte) (time.Time, bool) {
	if len(b) != len(stampLayout) || b[len(b)-1] != 'Z' {
		t, err := time.Parse(time.RFC3339Nano, string(b))
		return t, err == nil
	}
	digits := true
	number := func(from, to int) (n int) {
		for _, c := range b[from:to] {
			digits = digits && '0' <= c && c <= '9'
			n = n*10 + int(c-'0')
		}
		return n
	}
	for _, i := range [...]int{4, 7, 10, 13, 16, 19} {
		digits = digits && b[i] == stampLayout[i]
	}
	year, month, day := number(0, 4), number(5, 7), number(8, 10)
	hour, minute, second, nano := number(11, 13), number(14, 16), number(17, 19), number(20, 29)
	if !digits || hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nano, time.UTC)
	// time.Date takes the 31st of February for the 3rd of March.
	return t, t.Month() == time.Month(month) && t.Day() == day
}
