package transfer

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// maxStall is how long a registry may send nothing. Those that fetch from elsewhere first may need some of it.
var maxStall = 30 * time.Second

// maxAsked is the longest time that a registry may want to be left alone for; longer is left to whoever pulls.
const maxAsked = 2 * time.Minute

// stalled is what ends a request on which nothing comes.
type stalled struct{ after time.Duration }

func (e *stalled) Error() string { return fmt.Sprintf("nothing came for %s", e.after) }

// patience is how long a registry is waited for: not for ever where it is silent, and as long as it says (Retry-After,
// RFC 9110 10.2.3) where it has had too many requests. It stands below all that is asked of a registry, and of the service
// that it gets its tokens from.
type patience struct {
	inner http.RoundTripper
	tell  func(warning string) // what is waited for
	title string

	mutex sync.Mutex
	until time.Time // before which it wants no more requests
}

func (p *patience) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := p.await(request.Context()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(request.Context())
	stall := &stalled{maxStall}
	timer := time.AfterFunc(stall.after, func() { cancel(stall) })
	answer, err := p.inner.RoundTrip(request.WithContext(ctx))
	if err != nil {
		timer.Stop()
		if context.Cause(ctx) == stall {
			err = stall
		}
		cancel(nil)
		return nil, err
	}
	if busy(answer.StatusCode) {
		p.hear(answer.Header.Get("Retry-After"))
	}
	answer.Body = &watched{answer.Body, ctx, cancel, timer, stall}
	return answer, nil
}

// busy says whether a status asks for patience.
func busy(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable
}

// hear takes in how long the registry wants to be left alone: seconds, or a date.
func (p *patience) hear(after string) {
	var until time.Time
	if seconds, err := strconv.Atoi(after); err == nil && seconds > 0 {
		until = time.Now().Add(time.Duration(seconds) * time.Second)
	} else if date, err := http.ParseTime(after); err == nil {
		until = date
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if until.After(p.until) {
		p.until = until
	}
}

// asked is how long the registry still wants to be left alone.
func (p *patience) asked() time.Duration {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return max(0, time.Until(p.until)).Round(time.Second)
}

// tooLong says whether that is longer than podsh waits.
func (p *patience) tooLong() bool { return p.asked() > maxAsked }

// await waits as long as the registry has asked for.
func (p *patience) await(ctx context.Context) error {
	p.mutex.Lock()
	left := time.Until(p.until)
	p.mutex.Unlock()
	if left <= 0 {
		return nil
	}
	if left > time.Second {
		p.tell(fmt.Sprintf("registry %q has had too many requests: it is asked again in %s, as it wants", p.title, left.Round(time.Second)))
	}
	return pause(ctx, left)
}

// watched is the body of an answer, on which bytes must come.
type watched struct {
	io.ReadCloser
	ctx    context.Context // of the request
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  *stalled
}

func (w *watched) Read(piece []byte) (int, error) {
	n, err := w.ReadCloser.Read(piece)
	if n > 0 {
		w.timer.Reset(w.stall.after)
	}
	if err != nil && err != io.EOF && context.Cause(w.ctx) == w.stall {
		err = w.stall
	}
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	err := w.ReadCloser.Close()
	w.cancel(nil)
	return err
}
