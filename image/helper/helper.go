// Package helper is the program of images: podsh starts it for what is heavy. It reads one request, does that, and
// tells about it; package image has the words. It knows which package does what (transfer, unpack), and refuses to
// know how it came to be where it stands: for Unpack that is in namespaces of its own, with the folder as its root.
package helper

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/image/transfer"
	"github.com/podsh/podsh/image/unpack"
)

// maxRequest bounds a request; what there is of lists in it is short.
const maxRequest = 1 << 20

// Main is the program. It returns its exit status.
func Main(args []string) int {
	unix.CloseOnExec(image.RequestFD) // credential helpers are none of ours
	conn := os.NewFile(image.RequestFD, "podsh")
	if conn == nil {
		return 2
	}
	return serve(conn, len(args) > 0 && args[0] == image.UnpackName)
}

// errStopped is why a request is given up that nobody waits for.
var errStopped = errors.New("interrupted")

// serve answers the one request of a connection. One that is alone with a folder unpacks, and one that is not does not.
func serve(conn *os.File, alone bool) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	stopOnSignals(cancel)
	in := bufio.NewReader(io.LimitReader(conn, maxRequest))
	line, err := in.ReadBytes('\n')
	if err != nil {
		return 2 // whoever was to ask is gone
	}
	events := &events{out: json.NewEncoder(conn), gone: func() { cancel(errStopped) }}
	request := &image.Request{}
	if err := json.Unmarshal(line, request); err != nil {
		events.tell(image.Event{Error: "malformed request: " + err.Error()})
		return 2
	}
	go func() { // podsh has no more to say: a read that ends is its end
		_, _ = io.Copy(io.Discard, in)
		cancel(errStopped)
	}()
	ended := make(chan int, 1)
	go func() {
		images, err := do(ctx, request, alone, events.tell)
		if err != nil {
			events.tell(image.Event{Error: err.Error(), Hint: hint(err)})
			ended <- 1
			return
		}
		events.tell(image.Event{Finished: true, Images: images})
		ended <- 0
	}()
	return await(ctx, ended)
}

// maxClearing is how long what was given up may take to end. What waits for the other end of a pipe knows nothing of
// the context, and may wait for ever.
const maxClearing = 2 * time.Second

// await waits for the exit status.
func await(ctx context.Context, ended <-chan int) int {
	select {
	case status := <-ended:
		return status
	case <-ctx.Done():
	}
	select {
	case status := <-ended:
		return status
	case <-time.After(maxClearing):
		return 1
	}
}

// stopOnSignals ends what goes on when somebody wants that: partial blobs stay, to go on with.
func stopOnSignals(cancel func(error)) {
	signal.Ignore(unix.SIGPIPE) // a standard output that is closed is an error like others
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	go func() {
		<-stop
		cancel(errStopped)
	}()
}

// do does what a request asks for.
func do(ctx context.Context, request *image.Request, alone bool, tell func(image.Event)) ([]*image.Image, error) {
	if alone != (request.Do == image.Unpack) {
		return nil, fmt.Errorf("request %q: layers are unpacked, and nothing else is done, by who is alone with a folder", request.Do)
	}
	if alone {
		return nil, unpack.Unpack(ctx, os.Stdin, request, tell)
	}
	perform, ok := map[string]func(context.Context, *image.Store, *image.Request, func(image.Event)) ([]*image.Image, error){
		image.Pull: transfer.Pull, image.Save: transfer.Save, image.Import: transfer.Import,
	}[request.Do]
	if !ok {
		return nil, fmt.Errorf("unknown request %q", request.Do)
	}
	store, err := image.Open(request.Store)
	if err != nil {
		return nil, err
	}
	return perform(ctx, store, request, tell)
}

// events writes events, of several at a time.
type events struct {
	mutex sync.Mutex
	out   *json.Encoder
	gone  func()
}

func (e *events) tell(event image.Event) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if e.out.Encode(event) != nil {
		e.gone()
	}
}

// hint is the first line of an error that a person can act on.
func hint(err error) string {
	var hinted interface{ Hints() []string }
	if errors.As(err, &hinted) && len(hinted.Hints()) > 0 {
		return hinted.Hints()[0]
	}
	return ""
}
