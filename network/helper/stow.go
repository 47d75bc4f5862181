package helper

import (
	"errors"
	"os"

	"github.com/podsh/podsh/network/control"
)

// stow has copies of the sockets of all published ports kept where they outlive the helper.
func (h *helper) stow(_ *control.Request, files []*os.File) (*control.Answer, error) {
	if len(files) != 2 {
		control.Close(files)
		return nil, errors.New("nowhere to keep sockets")
	}
	h.stowed = [2]*os.File(files)
	return &control.Answer{}, h.stowAll()
}

// stowAll does so with those there are now. A port that is closed has to leave none behind: it would go on listening.
func (h *helper) stowAll() error {
	if h.stowed[0] == nil {
		return nil
	}
	var fds []int
	for _, m := range h.members {
		for _, p := range m.ports {
			fds = append(fds, p.relay.Listeners()...)
		}
	}
	return control.StowAll(h.stowed[0], h.stowed[1], fds)
}
