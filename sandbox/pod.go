package sandbox

import (
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
)

// lives is nil as long as the holder does; else an error that is ErrExited.
func lives(p *pod.Pod) error {
	pidfd, err := store.Open(p)
	if err == nil {
		pidfd.Close()
	}
	return err
}
