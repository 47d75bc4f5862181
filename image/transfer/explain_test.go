package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
)

// TestExplain: what can't be brought about on one machine.
func TestExplain(t *testing.T) {
	asked := func(err error) error { return &url.Error{Op: "Get", URL: "https://host.example/v2/", Err: err} }
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", unix.ECONNREFUSED)}
	r := &registry{ref: image.Reference{Registry: "host.example", Repository: "web", Tag: "1"}, base: "https://host.example/v2/web", patience: &patience{}}
	none := &registry{ref: r.ref, patience: r.patience}
	for _, c := range []struct {
		name  string
		r     *registry
		err   error
		words string
		again bool
	}{
		{"no TLS", r, asked(http.ErrSchemeMismatch), `registry "host.example" speaks no TLS`, false},
		{"redirected to no TLS", r, asked(errPlain), `registry "host.example" speaks no TLS`, false},
		{"nobody listens", r, errors.Join(asked(refused), asked(errPlain)), `registry "host.example": connection refused`, false},
		{"no answer", r, asked(&net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}), `registry "host.example": read tcp: i/o timeout`, true},
		{"stalled", r, &stalled{30 * time.Second}, `registry "host.example": nothing came for 30s`, true},
		{"gone", r, asked(io.EOF), `registry "host.example": EOF`, true},
		{"gone half-way", r, &brokenOff{1, 2, io.ErrUnexpectedEOF}, `image "host.example/web:1": registry "host.example" is gone half-way: it ended after 1 of 2 bytes`, true},
		{"no registry", none, &transport.Error{StatusCode: 404}, `"host.example" is no registry: it has no /v2/`, false},
		{"no such blob", r, &transport.Error{StatusCode: 404, Errors: []transport.Diagnostic{{Code: transport.BlobUnknownErrorCode}}}, `registry "host.example" lacks a blob of it`, false},
		{"no such name", r, &transport.Error{StatusCode: 404, Errors: []transport.Diagnostic{{Code: transport.NameUnknownErrorCode}}}, `registry "host.example" has no image "web"`, false},
		{"forbidden", r, &transport.Error{StatusCode: 403}, `wants credentials`, false},
		{"too many", r, &transport.Error{StatusCode: 429}, `registry "host.example": too many requests`, true},
		{"a page for a token", r, &tokenError{&json.SyntaxError{}}, `registry "host.example": the service that it gets its tokens from sends none, but a web page`, false},
		{"disk full", r, &diskError{&os.PathError{Op: "write", Path: "x", Err: unix.ENOSPC}}, "the disk is full", false},
		{"quota", r, &diskError{&os.PathError{Op: "write", Path: "x", Err: unix.EDQUOT}}, "the disk quota is used up", false},
	} {
		err := inWords(c.r.explain(c.err))
		wantError(t, err, c.words)
		if again := r.again(c.err); again != c.again {
			t.Errorf("%s: tried again %t", c.name, again)
		}
		if !errors.Is(err, c.err) && !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: the error itself is lost", c.name)
		}
	}
	if err := r.explain(context.Canceled); err != context.Canceled {
		t.Error(err)
	}
}

// endless is a source that always has more.
type endless struct{ source }

func (endless) open(context.Context, image.Descriptor, int64) (io.ReadCloser, int64, error) {
	return io.NopCloser(strings.NewReader(strings.Repeat("x", 1000))), 0, nil
}

func (endless) again(error) bool { panic("a full disk is tried again") }

// TestDiskFull: a disk that gets full ends a transfer, and what is there of it goes.
func TestDiskFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	p := &pulling{tell: (&heard{}).tell, source: endless{}}
	b := &bringing{pulling: p, part: full, d: image.Descriptor{Size: 1000}}
	var disk *diskError
	if err := b.transfer(context.Background()); !errors.As(err, &disk) || !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
}
