// Package compression reads what is compressed in one of the ways in which layers and archives of images are. How that
// is, is seen by how it begins: what others say of it is not always true.
//
// It refuses to know what is in there. Memory is bounded, whatever the input says.
package compression

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

const (
	// What a zstd stream may ask to be remembered: zstd -19 asks for 8 MiB, --ultra and --long for more.
	LayerWindow   = 16 << 20
	ArchiveWindow = 128 << 20

	maxDictionary = 64 << 20 // of xz -9
)

// formats are told by how a stream begins; one that begins otherwise is not compressed.
var formats = []struct {
	name  string
	magic []byte
	open  func(r io.Reader, window uint64) (io.ReadCloser, error)
}{
	{"gzip", []byte{0x1f, 0x8b}, openGzip},
	{"zstd", []byte{0x28, 0xb5, 0x2f, 0xfd}, openZstd},
	{"zstd", []byte{0x50, 0x2a, 0x4d, 0x18}, openZstd}, // a frame to be skipped, which pzstd begins with
	{"xz", []byte("\xfd7zXZ\x00"), openXZ},
	{"bzip2", []byte("BZh"), openBzip2},
}

// longest is how much of a stream tells what it is; of bzip2 that is the mark of its first block, behind the level.
const longest = 10

// isBzip2 looks further: a tar begins with any name.
func isBzip2(start []byte) bool {
	return len(start) == longest && (string(start[4:]) == "1AY&SY" || string(start[4:]) == "\x17rE8P\x90")
}

func openGzip(r io.Reader, _ uint64) (io.ReadCloser, error) { return gzip.NewReader(r) }

func openZstd(r io.Reader, window uint64) (io.ReadCloser, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		return nil, err
	}
	return z.IOReadCloser(), nil
}

func openXZ(r io.Reader, _ uint64) (io.ReadCloser, error) {
	x, err := xz.NewReader(r, maxDictionary)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(x), nil
}

func openBzip2(r io.Reader, _ uint64) (io.ReadCloser, error) {
	return io.NopCloser(bzip2.NewReader(r)), nil
}

// Open reads what is compressed, or as it is: then name is "".
func Open(b *bufio.Reader, window uint64) (plain io.ReadCloser, name string, err error) {
	start, err := b.Peek(longest)
	if err != nil && err != io.EOF {
		return nil, "", err
	}
	for _, f := range formats {
		if !bytes.HasPrefix(start, f.magic) || f.name == "bzip2" && !isBzip2(start) {
			continue
		}
		plain, err = f.open(b, window)
		return plain, f.name, err
	}
	return io.NopCloser(b), "", nil
}
