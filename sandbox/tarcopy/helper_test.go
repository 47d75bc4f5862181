package tarcopy

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func openRoot(t testing.TB, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// grow makes a tree from lines: "d NAME", "f NAME CONTENTS", "l NAME TARGET", "h NAME TARGET", "p NAME".
func grow(t testing.TB, dir string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		words := append(strings.SplitN(line, " ", 3), "")
		name := filepath.Join(dir, words[1])
		var err error
		switch words[0] {
		case "d":
			err = os.MkdirAll(name, 0o755)
		case "f":
			err = os.WriteFile(name, []byte(words[2]), 0o644)
		case "l":
			err = os.Symlink(words[2], name)
		case "h":
			err = os.Link(filepath.Join(dir, words[2]), name)
		case "p":
			err = syscall.Mkfifo(name, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// shown is a tree as such lines, sorted; skip and what is below it are left out.
func shown(t testing.TB, dir, skip string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, _ := filepath.Rel(dir, name)
		switch {
		case below == skip && skip != "":
			return fs.SkipDir
		case below == ".":
		case d.IsDir():
			lines = append(lines, "d "+below)
		case d.Type() == fs.ModeSymlink:
			target, _ := os.Readlink(name)
			lines = append(lines, "l "+below+" "+target)
		case d.Type() == fs.ModeNamedPipe:
			lines = append(lines, "p "+below)
		default:
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			lines = append(lines, strings.TrimSpace("f "+below+" "+string(b)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

var kindOf = map[string]byte{
	"d": tar.TypeDir, "f": tar.TypeReg, "l": tar.TypeSymlink, "h": tar.TypeLink,
	"p": tar.TypeFifo, "c": tar.TypeChar, "b": tar.TypeBlock,
}

// archive makes a tar from such lines, whatever the names in them.
func archive(lines ...string) *bytes.Buffer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, line := range lines {
		words := append(strings.SplitN(line, " ", 3), "", "")
		h := &tar.Header{Name: words[1], Typeflag: kindOf[words[0]], Mode: 0o6755, Format: tar.FormatPAX}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(words[2]))
		} else {
			h.Linkname = words[2]
		}
		if w.WriteHeader(h) == nil && h.Typeflag == tar.TypeReg {
			fmt.Fprint(w, words[2])
		}
	}
	w.Close()
	return &b
}

// wantError checks an error by a part of its words; "" is none.
func wantError(t testing.TB, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("got the error %v, want %q", err, want)
	}
}
