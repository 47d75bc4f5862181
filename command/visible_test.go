package command

import (
	"bytes"
	"strings"
	"testing"
)

func TestVisible(t *testing.T) {
	for text, want := range map[string]string{
		"plain\n\tgrüße €\n":         "plain\n\tgrüße €\n",
		"\x1b[2J\x1b]0;title\a":      `\x1b[2J\x1b]0;title\a`,
		"\x9b31m \u009b31m \u202e":   `\x9b31m \u009b31m \u202e`, // what some terminals take for an escape, too
		"10%\r20%\r\nback\b\x00\x7f": `10%\r20%` + "\r\n" + `back\b\x00\x7f`,
		"half \xe2\x82":              `half \xe2\x82`,
		"\r":                         `\r`,
	} {
		for _, size := range []int{1, 2, 3, 100} {
			var out bytes.Buffer
			v := &visible{out: &out}
			for rest := text; rest != ""; rest = rest[min(size, len(rest)):] {
				if n, err := v.Write([]byte(rest[:min(size, len(rest))])); err != nil || n != min(size, len(rest)) {
					t.Fatal(n, err)
				}
			}
			if err := v.Close(); err != nil || out.String() != want {
				t.Errorf("%q in parts of %d: %q, %v, want %q", text, size, out.String(), err, want)
			}
		}
	}
}

// FuzzVisible: nothing that a terminal would act on gets through, however it is cut.
func FuzzVisible(f *testing.F) {
	f.Add("a\x1b[31m\r\n\xc2", uint(2))
	f.Fuzz(func(t *testing.T, text string, size uint) {
		var out bytes.Buffer
		v := &visible{out: &out}
		for rest := text; rest != ""; {
			n := min(int(size%7)+1, len(rest))
			_, _ = v.Write([]byte(rest[:n])) // into memory
			rest = rest[n:]
		}
		_ = v.Close()
		left := strings.NewReplacer("\r\n", "", "\n", "", "\t", "").Replace(out.String())
		if strings.ContainsFunc(left, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
			t.Errorf("%q becomes %q", text, out.String())
		}
	})
}
