package program

import (
	"bytes"
	"encoding/binary"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
)

// FuzzUnpack: what is packed (but not by the best, which clears megabytes first) is the same again, and what is not is an error as it is to others.
func FuzzUnpack(f *testing.F) {
	for _, text := range []string{"", "a", strings.Repeat("abc", 1000), strings.Repeat("x", 100_000), "\x05\xf0", "\x04\x01\x00", "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", "\x80\x80\x80\x80\x80\x00", "\x80\x80\x80\x80\x00"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, packed := range [][]byte{s2.EncodeSnappyBetter(nil, text), s2.EncodeSnappy(nil, text)} {
			if got, err := unpack(string(packed)); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%d bytes become %d, %v", len(text), len(got), err)
			}
		}
		got, err := unpack(string(text))
		if err != nil {
			return
		}
		if want, err := s2.Decode(nil, text); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	})
}

// What claims to become large is malformed, and takes no memory: the fuzzer makes thousands of such a second.
func TestUnpackClaim(t *testing.T) {
	claim := string(binary.AppendUvarint(nil, 1<<30)) + strings.Repeat("\x00x", 100)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := unpack(claim); err != errPacked {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if taken := after.TotalAlloc - before.TotalAlloc; taken > 1<<16 {
		t.Errorf("%d bytes", taken)
	}
}

// TestUnpack: with a program, this one.
func TestUnpack(t *testing.T) {
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	packed := string(s2.EncodeSnappyBest(nil, text))
	if got, err := unpack(packed); err != nil || !bytes.Equal(got, text) {
		t.Error(len(got), err)
	}
	for _, broken := range []string{"", packed[:len(packed)/2], packed + "\x00x", "\xff\xff\xff\xff\xff\x0f" + packed} {
		if _, err := unpack(broken); err != errPacked {
			t.Errorf("%d bytes of %d: %v", len(broken), len(packed), err)
		}
	}
}
