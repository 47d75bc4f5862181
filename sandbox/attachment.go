package sandbox

import (
	"github.com/podsh/podsh/sandbox/ask"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
)

// Start starts the container under the pod's supervisor; who is to see its output at once is attached.
func Start(c *pod.Container, a *ask.Attachment) (*ask.Session, error) {
	if err := store.Lives(c.In); err != nil { // else it would be written down that the container could not be started
		return nil, store.WhereItWrote(c, err)
	}
	request := &ask.SuperviseRequest{Do: ask.AskStart, Container: c.ID}
	files, input := a.Files()
	if a != nil {
		request.Input, request.Rows, request.Columns, request.Term = input, a.Rows, a.Cols, a.Term
	}
	_, conn, err := ask.Ask(c.In, request, files...)
	if err != nil {
		if conn != nil {
			conn.Close()
		}
		return nil, err
	}
	return &ask.Session{Conn: conn, Container: c.ID}, nil
}
