package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podsh/podsh/image"
)

// TestMemory unpacks folders with a megabyte of comments each in a process of its own. Its VmHWM counts, as the
// peak that wait4(2) tells is that of the test as well: it stays across execve(2).
func TestMemory(t *testing.T) {
	if testing.Short() { // TestInUserNamespace: once is enough
		return
	}
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	for i := range 80 {
		h := &tar.Header{Name: fmt.Sprintf("d%d/", i), Typeflag: tar.TypeDir, Mode: 0o755,
			PAXRecords: map[string]string{"PODSH.comment": strings.Repeat("x", 1000<<10)}}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	zip := exec.Command("gzip", "-1") // ours is slow with the race detector
	zip.Stdin = bytes.NewReader(plain.Bytes())
	blob, err := zip.Output()
	if err != nil {
		t.Fatal(err)
	}
	words, err := json.Marshal(requestOf(blob, plain.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "unpack", t.TempDir(), string(words))
	cmd.Env = append(os.Environ(), "PODSH_TEST_PEAK=1")
	cmd.Stdin = blobFile(t, blob)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	peak := 0
	_, line, _ := strings.Cut(string(out), "VmHWM:")
	limit := 64 << 10 // KiB
	if raceDetector() {
		limit *= 3 // which it needs for itself; what grew with the folders would still be more
	}
	if _, err := fmt.Sscan(line, &peak); err != nil || peak > limit {
		t.Errorf("peak of %d KiB for a blob of %d KiB, %v", peak, len(blob)>>10, err)
	}
}

// raceDetector says whether the tests were built with it.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// TestHoleStops cancels in the middle of a hole, where nothing of the blob is read.
func TestHoleStops(t *testing.T) {
	b := sparseTar("huge", 1<<40)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	err := unpackInto(ctx, t.TempDir(), blobFile(t, b), requestOf(b, b), func(image.Event) {})
	if took := time.Since(begin); took > 5*time.Second || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stopped after %v: %v", took, err)
	}
}

// TestHolesAfterGlobalHeader is what git archive begins with; it is padded, but has no size.
func TestHolesAfterGlobalHeader(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "abc"}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	const size = 8 << 20
	blob := append(b.Bytes(), sparseTar("old", size)...)
	u := unpackBlob(t, blob, requestOf(blob, blob)).mustWork(t)
	if st := u.lstat(t, "old"); st.Size != size || st.Blocks > 128 {
		t.Errorf("size %d, %d blocks", st.Size, st.Blocks)
	}
}

func TestZstdSkippableFrameFirst(t *testing.T) {
	b := tarOf(t, file("a", "a"))
	blob := append([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}, zstandard(t, b)...)
	unpackBlob(t, blob, requestOf(blob, b)).mustWork(t)
}

// TestNoDigestOfTheBlob calls the layer by its tar's digest, and still holds that.
func TestNoDigestOfTheBlob(t *testing.T) {
	b := tarOf(t, file("a", "a"))
	r := requestOf(b, b)
	r.Layer.Digest = ""
	u := unpackBlob(t, gzipped(t, b), r).mustWork(t)
	if last := u.events[len(u.events)-1]; last.Blob != digest(b) {
		t.Errorf("last event: %+v", last)
	}
	r.Layer.DiffID = digest(nil)
	if u := unpackBlob(t, b, r); !errors.Is(u.err, errDigest) || !strings.Contains(u.err.Error(), digest(b)) {
		t.Error(u.err)
	}
}

// TestTimesOfLaterPieces has a folder's entry after a file of it, in a piece that is not the first.
func TestTimesOfLaterPieces(t *testing.T) {
	var entries []entry
	for i := range pieceEntries {
		entries = append(entries, hardlink(fmt.Sprint("l", i%2), "f"))
	}
	entries = append([]entry{dir("d/"), file("f", "")}, entries...)
	entries = append(entries, file("y", ""), file("p/1", ""), dir("p/"), file("p/2", ""), file("w/1", ""), file("p/3", ""), file("d/1", ""))
	u := try(t, nil, entries...).mustWork(t)
	for _, name := range []string{"d", "p"} {
		if st := u.lstat(t, name); st.Mtim.Sec != 1e9 {
			t.Errorf("%s: modified %d", name, st.Mtim.Sec)
		}
	}
}
