package sandbox

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
)

// fuzzedFile is a store with one pod and, in that, one container; the file of it is what is fuzzed.
func fuzzedFile(t *testing.T, name string, text []byte) *pod.Pod {
	t.Helper()
	p := &pod.Pod{ID: "0123456789ab", Root: t.TempDir()}
	dir := store.ContainersPath(p, "ba9876543210")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// FuzzContainer: a description that can't be read is a broken container, which can be removed; one that can is planned
// and shown without a panic.
func FuzzContainer(f *testing.F) {
	f.Add([]byte(`{"format":2,"id":"ba9876543210","pod":"0123456789ab","name":"c","argv":["x"],"disk":"/d/ba9876543210"}`))
	f.Add([]byte(`{"format":2,"id":"ba9876543210","argv":null,"env":[""],"root":{"kind":"layers","layers":[]},"volumes":[{}],"created":"x"}`))
	f.Add([]byte(`{"disk":"/ba9876543210","created":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p := fuzzedFile(t, "container.json", text)
		all, err := store.Containers(p)
		if err != nil || len(all) != 1 || all[0].ID != "ba9876543210" {
			t.Fatalf("%q: %v, %v", text, all, err)
		}
		c := all[0]
		_, _, _ = c.Title(), folders(c), store.LogPath(c)
		if state, err := store.StateOf(c); err == nil && state == nil {
			t.Errorf("%q has no state", text)
		}
		if c.Broken != nil && filepath.Base(c.Disk) != c.ID {
			t.Errorf("%q: its files would be in %q", text, c.Disk)
		}
	})
}

// FuzzContainerState: whatever is written down, there is one of the states that there are, or an error.
func FuzzContainerState(f *testing.F) {
	f.Add([]byte(`{"status":"running","process":{"pid":1},"watcher":{"pid":1,"started":"7"}}`))
	f.Add([]byte(`{"status":"restarting","restart_at":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"status":"dreaming","process":{"pid":-1}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p := fuzzedFile(t, "state.json", text)
		c := &pod.Container{ID: "ba9876543210", In: p}
		if state, err := store.StateOf(c); (state == nil) == (err == nil) {
			t.Errorf("%q: %v, %v", text, state, err)
		}
	})
}
