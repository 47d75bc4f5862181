package tarcopy

import (
	"bytes"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
)

// FuzzPlace unpacks tars that are made from lines, so that most of them are well-formed, and what follows
// "raw " as it is. Nothing may change outside of the folder.
func FuzzPlace(f *testing.F) {
	for _, seed := range []string{
		"d n/;f n/x new;h n/y n/x;l n/z x",
		"l n ../outside;f n/new x",
		"l n ../outside/secret;h m n;f m x",
		"f out/new x;f outfile x",
		"h n out/secret;f n x",
		"f n/../../outside/new x",
		"d near/;f near/../../outside/secret x",
		"c n;b m;p o",
		"l n/a /;l n/a/b c;d n/a/",
		"raw " + archive("d n/", "f n/x y", "l n/l ../..").String(),
	} {
		for _, rename := range []string{"", ".", "r", "out", "outfile"} {
			f.Add(seed, rename)
		}
	}
	f.Fuzz(func(t *testing.T, text, rename string) {
		top := t.TempDir()
		grow(t, top, around...)
		before := shown(t, top, "dest")
		var in io.Reader
		if raw, ok := strings.CutPrefix(text, "raw "); ok {
			in = bytes.NewBufferString(raw)
		} else {
			var lines []string
			for line := range strings.SplitSeq(text, ";") {
				kind, name, _ := strings.Cut(line, " ")
				if kindOf[kind] != 0 && name != "" {
					lines = append(lines, line)
				}
			}
			in = archive(lines...)
		}
		_ = Place(openRoot(t, top), "dest", rename, in, Options{MaxBytes: 1 << 20})
		if after := shown(t, top, "dest"); after != before {
			t.Errorf("outside there was\n%s\nand is\n%s", before, after)
		}
		info, err := os.Stat(top + "/outside/secret")
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Nlink != 1 || info.Mode() != 0o644 {
			t.Errorf("the file outside has %d names and the mode %v", st.Nlink, info.Mode())
		}
		os.Chmod(top+"/dest", 0o755)
	})
}
