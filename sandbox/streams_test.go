package sandbox

import (
	"io"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// TestDrainLosesNothing: what a command has written when it ends is passed on, whenever the deadline comes that wakes who
// reads it, and if somebody who got away has the pipe.
func TestDrainLosesNothing(t *testing.T) {
	for range 50 {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(write, "the last words"); err != nil {
			t.Fatal(err)
		}
		var ended, over atomic.Bool
		ended.Store(true)
		c := &copied{name: "standard output", file: theirs, pipe: read}
		waking, woken := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(woken)
			_ = read.SetReadDeadline(time.Now())
			close(waking)
			for !over.Load() {
				_ = read.SetReadDeadline(time.Now()) // Drain; it may be closed
			}
		}()
		<-waking
		c.out(&ended)
		over.Store(true)
		<-woken
		theirs.Close()
		got, err := io.ReadAll(ours)
		if err != nil || c.err != nil || string(got) != "the last words" {
			t.Fatalf("%q, %v, %v", got, err, c.err)
		}
		ours.Close()
		write.Close()
	}
}
