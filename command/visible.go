package command

import (
	"bytes"
	"io"
	"os"
	"unicode/utf8"

	"github.com/podsh/podsh/sandbox/proc"
)

// visible writes text of others to a terminal: what would move its cursor, name its window or type into its shell is shown
// as text. Lines and tabs are what they are. Who pipes it elsewhere gets every byte.
type visible struct {
	out  io.Writer
	rest []byte // what may go on with the next write: a part of a character, or a return before a newline
}

// shown is a standard stream, as others' text goes there.
func shown(to *os.File) io.WriteCloser {
	if isTerminal(to) {
		return &visible{out: to}
	}
	return keptOpen{to}
}

// keptOpen is a stream that is not ours to close.
type keptOpen struct{ io.Writer }

func (keptOpen) Close() error { return nil }

func (v *visible) Write(p []byte) (int, error) {
	text := append(v.rest, p...)
	whole := len(text) - unfinished(text)
	err := v.show(text[:whole])
	v.rest = bytes.Clone(text[whole:])
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close shows what was waited for in vain.
func (v *visible) Close() error {
	err := v.show(v.rest)
	v.rest = nil
	return err
}

// unfinished is how many bytes at the end may mean something else with the next ones.
func unfinished(text []byte) int {
	if bytes.HasSuffix(text, []byte("\r")) {
		return 1
	}
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if last := text[len(text)-n:]; utf8.RuneStart(last[0]) {
			if utf8.FullRune(last) {
				return 0
			}
			return n
		}
	}
	return 0
}

func (v *visible) show(text []byte) error {
	var b bytes.Buffer
	for len(text) > 0 {
		n := bytes.IndexAny(text, "\r\n\t")
		if n < 0 {
			n = len(text)
		}
		b.WriteString(proc.Printable(string(text[:n])))
		switch text = text[n:]; {
		case len(text) == 0:
		case text[0] == '\r' && !bytes.HasPrefix(text, []byte("\r\n")): // else a terminal has made it of a newline
			b.WriteString(`\r`)
			text = text[1:]
		default:
			b.WriteByte(text[0])
			text = text[1:]
		}
	}
	_, err := v.out.Write(b.Bytes())
	return err
}
