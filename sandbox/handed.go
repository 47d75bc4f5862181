package sandbox

import (
	"github.com/podsh/podsh/sandbox/container"
)

// listen gives a run of the container its sockets. They stay open until it has ended for good: who comes while it starts once
// more waits.
func (v *supervised) listen(stdio *container.Stdio) (err error) {
	if v.sockets == nil {
		v.sockets, err = container.OpenSockets(v.c.Spec.Listen)
	} else {
		err = container.MakeReady(v.sockets, v.c.Spec.Listen)
	}
	stdio.Sockets = v.sockets
	return err
}
