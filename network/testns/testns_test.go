package testns

import (
	"os"
	"runtime"
	"testing"
	"time"
)

// failing is a test that may fail.
type failing struct {
	testing.TB
	failed bool
}

func (f *failing) Helper() {}

func (f *failing) FailNow() {
	f.failed = true
	runtime.Goexit()
}

// TestInFails: what fails in another namespace fails the test, and nobody waits for it any more.
func TestInFails(t *testing.T) {
	if !Inside(t) {
		return
	}
	network, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer network.Close()
	f, ended := &failing{TB: t}, make(chan struct{})
	go func() {
		defer close(ended)
		In(f, network, f.FailNow)
		t.Error("it goes on behind a failure")
	}()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("it waits for what has failed")
	}
	if !f.failed {
		t.Error("it did not fail")
	}
}
