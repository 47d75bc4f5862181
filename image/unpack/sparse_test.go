package unpack

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// sparseTar is a file of size bytes with 8 KiB of data at its end, in GNU's oldest format of holes.
func sparseTar(name string, size int64) []byte {
	h := make([]byte, 512)
	copy(h, name)
	octal := func(at, width int, n int64) {
		if n < 1<<33 {
			copy(h[at:], fmt.Sprintf("%0*o", width-1, n))
			return
		}
		h[at] = 0x80
		for i := range 8 {
			h[at+width-1-i] = byte(n >> (8 * i))
		}
	}
	octal(100, 8, 0o640)
	octal(108, 8, 0)
	octal(116, 8, 0)
	octal(124, 12, 8192)
	octal(136, 12, 1e9)
	h[156] = tar.TypeGNUSparse
	copy(h[257:], "ustar  \x00")
	octal(386, 12, size-8192)
	octal(398, 12, 8192)
	octal(483, 12, size)
	copy(h[148:], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	h = append(h, bytes.Repeat([]byte{'x'}, 8192)...)
	return append(h, make([]byte, 1024)...)
}

func TestHoles(t *testing.T) {
	const size = 8 << 20
	old := sparseTar("old", size)
	blobs := map[string][]byte{"old": append(old[:len(old)-1024], tarOf(t, file("next", "next"))...)}
	folder := t.TempDir()
	f, err := os.Create(filepath.Join(folder, "gnu"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt(bytes.Repeat([]byte{'x'}, 8192), size-8192); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "next"), []byte("next"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"0.0", "0.1", "1.0"} {
		out, err := exec.Command("tar", "-C", folder, "-cS", "--format=posix", "--sparse-version="+format, "gnu", "next").Output()
		if err != nil {
			skip(t, "tar: %v", err)
		}
		blobs[format] = out
	}
	for name, blob := range blobs {
		u := unpackBlob(t, blob, requestOf(blob, blob)).mustWork(t)
		file := "gnu"
		if name == "old" {
			file = "old"
		}
		if st := u.lstat(t, file); st.Size != size || st.Blocks > 128 || st.Nlink != 1 {
			t.Errorf("%s: size %d, %d blocks, %d links", name, st.Size, st.Blocks, st.Nlink)
		}
		got, err := os.ReadFile(filepath.Join(u.root, file))
		if err != nil || bytes.Count(got, []byte{'x'}) != 8192 || got[size-8192] != 'x' {
			t.Errorf("%s: not what it was, %v", name, err)
		}
		if got, err := os.ReadFile(filepath.Join(u.root, "next")); string(got) != "next" {
			t.Errorf("%s: next: %q, %v", name, got, err)
		}
		if all, _ := os.ReadDir(u.root); len(all) != 2 {
			t.Errorf("%s: %v", name, all)
		}
	}
}
