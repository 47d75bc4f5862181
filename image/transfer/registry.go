package transfer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/image/registries"
)

// registry is a registry that speaks the distribution-spec, and the image that is wanted of it.
type registry struct {
	ref      image.Reference
	base     string // https://HOST/v2/REPOSITORY; the transport knows better whether it is http
	client   *http.Client
	wanted   wanted
	tell     func(image.Event)
	patience *patience
	problem  error // with credentials
}

// connect speaks with a registry for the first time, and learns what it wants for credentials. What goes wrong then is
// in words.
func connect(ctx context.Context, p *pulling, at place) (*registry, error) {
	ref := at.ref
	r := &registry{ref: ref, wanted: p.wanted, tell: p.tell}
	var options []name.Option
	plain := p.PlainHTTP || at.insecure
	if plain || isLoopback(ref.Registry) {
		options = append(options, name.Insecure) // to be tried where https fails
	}
	host, err := name.NewRegistry(ref.Registry, options...)
	if err != nil {
		return nil, image.Fail(image.ErrInvalid, "HOST[:PORT]/NAME", "malformed registry %q", ref.Registry)
	}
	repository := host.Repo(strings.Split(ref.Repository, "/")...)
	credentials, problem := registries.Credentials(ctx, repository)
	if r.problem = problem; problem != nil {
		p.tell(image.Event{Warning: fmt.Sprintf("credentials for %q are not known: %v", ref.Registry, problem)})
	}
	inner := newTransport()
	if inner.TLSClientConfig, err = registries.Trust(ref.Registry); err != nil {
		return nil, err
	}
	if at.insecure {
		inner.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // registries.conf says so of this one
	}
	r.patience = &patience{inner: &guard{plain, inner}, title: ref.Registry, tell: func(w string) { p.tell(image.Event{Warning: w}) }}
	var authenticated http.RoundTripper
	err = r.tried(ctx, r.againFirst, func() (err error) {
		authenticated, err = transport.NewWithContext(ctx, host, credentials, r.patience, []string{repository.Scope(transport.PullScope)})
		return tokenTrouble(err)
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
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: atOnce,
		TLSHandshakeTimeout: 10 * time.Second,
		DisableCompression:  true,
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
	return []*found{f}, nil
}

// manifest fetches a manifest or an index, by tag or digest.
func (r *registry) manifest(ctx context.Context, which string) (text []byte, mediaType string, err error) {
	err = r.tried(ctx, r.again, func() (err error) {
		text, mediaType, err = r.manifestOnce(ctx, which)
		return err
	})
	return text, mediaType, err
}

// tried does something, more than once where that may help.
func (r *registry) tried(ctx context.Context, again func(error) bool, do func() error) error {
	wait := firstWait
	for tries := 1; ; tries++ {
		err := do()
		if err == nil || tries == maxTries || !again(err) || ctx.Err() != nil {
			return err
		}
		r.retries(err)
		if err := pause(ctx, wait); err != nil {
			return err
		}
		wait *= 2
	}
}

// retries tells that a registry was silent, before it is asked once more.
func (r *registry) retries(err error) {
	var silent *stalled
	if errors.As(err, &silent) {
		r.tell(image.Event{Warning: fmt.Sprintf("registry %q: %v; it is asked again, for what is missing", r.ref.Registry, silent)})
	}
}

func (r *registry) manifestOnce(ctx context.Context, which string) (text []byte, mediaType string, err error) {
	answer, err := r.get(ctx, "/manifests/"+which, http.Header{"Accept": append(append([]string{}, indexes...), manifests...)})
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	if encoding := answer.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, "", image.Fail(errEncoded, "the registry, or a proxy before it, is not to compress what is asked for as it is",
			"registry %q sends a manifest with Content-Encoding %q, which nobody has asked for", r.ref.Registry, encoding)
	}
	text, err = io.ReadAll(io.LimitReader(answer.Body, image.MaxDocument+1))
	if err != nil {
		return nil, "", err
	}
	if len(text) > image.MaxDocument {
		return nil, "", fmt.Errorf("its manifest has more than %d MB", image.MaxDocument>>20)
	}
	if isWebPage(text) {
		return nil, "", webPage(errors.New("a manifest begins with {"), "registry %q answers with a web page, and no manifest", r.ref.Registry)
	}
	return text, answer.Header.Get("Content-Type"), nil
}

// errEncoded is an answer in a form that nobody has asked for.
var errEncoded = errors.New("unexpected Content-Encoding")

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
	case errors.As(err, &disk), isCertificate(err), errors.Is(err, errPlain), hinted(err), r.patience.tooLong():
		return false
	case errors.As(err, &answer): // before that https may have been tried in vain
		return answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode == http.StatusRequestTimeout || answer.StatusCode >= 500
	case errors.Is(err, http.ErrSchemeMismatch):
		return false
	case is[*stalled](err), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
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
