package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
)

// registry is a source that speaks the distribution-spec.
type registry struct {
	ref    image.Reference
	base   string // https://HOST/v2/REPOSITORY; the transport knows better whether it is http
	client *http.Client
	wanted wanted
}

// openRegistry connects to the registry that the source names, and learns what it wants for credentials.
func openRegistry(ctx context.Context, p *pulling, rest string) (source, error) {
	ref, err := image.ParseReference(rest)
	if err != nil {
		return nil, err
	}
	r := &registry{ref: ref, wanted: p.wanted}
	var options []name.Option
	if p.PlainHTTP || isLoopback(ref.Registry) {
		options = append(options, name.Insecure) // to be tried where https fails
	}
	host, err := name.NewRegistry(ref.Registry, options...)
	if err != nil {
		return nil, image.Fail(image.ErrInvalid, "HOST[:PORT]/NAME", "malformed registry %q", ref.Registry)
	}
	repository := host.Repo(strings.Split(ref.Repository, "/")...)
	credentials, err := authn.Resolve(ctx, keychain, repository)
	if err != nil {
		return nil, image.Fail(err, "look into ~/.docker/config.json", "credentials for %q: %v", ref.Registry, err)
	}
	var authenticated http.RoundTripper
	err = tried(ctx, r.againFirst, func() (err error) {
		authenticated, err = transport.NewWithContext(ctx, host, credentials, &guard{p.PlainHTTP, newTransport()}, []string{repository.Scope(transport.PullScope)})
		return err
	})
	if err != nil {
		return nil, r.explain(err)
	}
	r.client = &http.Client{Transport: authenticated}
	r.base = "https://" + host.RegistryStr() + "/v2/" + ref.Repository
	return r, nil
}

// newTransport is like http.DefaultTransport, but it neither waits for ever nor touches what is compressed.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   atOnce,
		TLSHandshakeTimeout:   20 * time.Second,
		ResponseHeaderTimeout: maxStall,
		DisableCompression:    true,
	}
}

// guard lets nothing through that is not encrypted, but to this machine or where that is allowed.
type guard struct {
	plain bool
	inner http.RoundTripper
}

// errPlain is what guard refuses.
var errPlain = errors.New("without TLS anybody on the way could read the credentials")

func (g *guard) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.URL.Scheme == "http" && !g.plain && !isLoopback(request.URL.Host) {
		return nil, errPlain
	}
	return g.inner.RoundTrip(request)
}

// isLoopback says whether a host, maybe with a port, is this machine.
func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

func (r *registry) close() { r.client.CloseIdleConnections() }

func (r *registry) find(ctx context.Context) ([]*found, error) {
	which := r.ref.Digest
	if which == "" {
		which = r.ref.Tag
	}
	text, mediaType, err := r.manifest(ctx, which)
	if err != nil {
		return nil, err
	}
	if r.ref.Digest != "" {
		if err := checkDocument(text, image.Descriptor{Digest: r.ref.Digest}); err != nil {
			return nil, err
		}
	}
	f, err := r.wanted.resolve(text, mediaType, func(d image.Descriptor) ([]byte, error) {
		text, _, err := r.manifest(ctx, d.Digest)
		return text, err
	})
	if err != nil {
		return nil, err
	}
	named := r.ref
	if named.Digest != "" {
		named.Tag = "" // nobody has compared the two
	}
	f.names = []string{named.String()}
	return []*found{f}, nil
}

// manifest fetches a manifest or an index, by tag or digest.
func (r *registry) manifest(ctx context.Context, which string) (text []byte, mediaType string, err error) {
	err = tried(ctx, r.again, func() (err error) {
		text, mediaType, err = r.manifestOnce(ctx, which)
		return err
	})
	return text, mediaType, err
}

// tried does something, more than once where that may help.
func tried(ctx context.Context, again func(error) bool, do func() error) error {
	wait := firstWait
	for tries := 1; ; tries++ {
		err := do()
		if err == nil || tries == maxTries || !again(err) || ctx.Err() != nil {
			return err
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
		wait *= 2
	}
}

func (r *registry) manifestOnce(ctx context.Context, which string) (text []byte, mediaType string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, maxStall, errStalled)
	defer cancel()
	answer, err := r.get(ctx, "/manifests/"+which, http.Header{"Accept": append(append([]string{}, indexes...), manifests...)})
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	text, err = io.ReadAll(io.LimitReader(answer.Body, image.MaxDocument+1))
	if err != nil {
		return nil, "", err
	}
	if len(text) > image.MaxDocument {
		return nil, "", fmt.Errorf("its manifest has more than %d MB", image.MaxDocument>>20)
	}
	return text, answer.Header.Get("Content-Type"), nil
}

func (r *registry) get(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header = header
	answer, err := r.client.Do(request)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(answer, http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable); err != nil {
		answer.Body.Close()
		return nil, err
	}
	return answer, nil
}

// open asks for the rest of a blob; a registry, or what stands before it, may send all of it, RFC 9110 14.2.
func (r *registry) open(ctx context.Context, d image.Descriptor, from int64) (io.ReadCloser, int64, error) {
	header := http.Header{}
	if from > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	answer, err := r.get(ctx, "/blobs/"+d.Digest, header)
	if err != nil {
		return nil, 0, err
	}
	switch answer.StatusCode {
	case http.StatusOK:
		return answer.Body, 0, nil
	case http.StatusPartialContent:
		if at, ok := rangeStart(answer.Header.Get("Content-Range")); ok && at == from {
			return answer.Body, at, nil
		}
	}
	answer.Body.Close()
	if from > 0 {
		return r.open(ctx, d, 0)
	}
	return nil, 0, fmt.Errorf("unexpected answer %s to a request for blob %s", answer.Status, d.Digest)
}

// rangeStart reads where "bytes 10-20/30" begins.
func rangeStart(text string) (int64, bool) {
	span, ok := strings.CutPrefix(text, "bytes ")
	first, _, cut := strings.Cut(span, "-")
	at, err := strconv.ParseInt(first, 10, 64)
	return at, ok && cut && err == nil
}

// again: what the registry refuses it will refuse once more; what the network did to a transfer may pass.
func (r *registry) again(err error) bool {
	var disk *diskError
	var answer *transport.Error
	switch {
	case errors.As(err, &disk), isCertificate(err), errors.Is(err, errPlain):
		return false
	case errors.As(err, &answer): // before that https may have been tried in vain
		return answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode == http.StatusRequestTimeout || answer.StatusCode >= 500
	case errors.Is(err, http.ErrSchemeMismatch):
		return false
	case errors.Is(err, errStalled), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return true
	}
	var network net.Error
	var broken *brokenOff
	return errors.As(err, &network) || errors.As(err, &broken)
}

// againFirst is again for the first word to a registry: where nobody answers, the name may be wrong, and that is told
// at once.
func (r *registry) againFirst(err error) bool {
	broken := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET)
	return r.again(err) && (broken || is[*transport.Error](err))
}
