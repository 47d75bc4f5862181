package transfer

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/image/registries"
)

// hinted says whether an error is in words already.
func hinted(err error) bool {
	var words interface{ Hints() []string }
	return errors.As(err, &words)
}

func noRoom(why string) error {
	return image.Fail(unix.ENOSPC, "`podsh image prune -a` removes images that nothing uses", "the disk is full: %s", why)
}

// inWords explains what has nothing to do with where an image comes from, or goes to.
func inWords(err error) error {
	switch {
	case err == nil || hinted(err):
		return err
	case errors.Is(err, unix.ENOSPC):
		return noRoom(err.Error())
	case errors.Is(err, unix.EDQUOT):
		return image.Fail(err, "`podsh image prune -a` removes images that nothing uses; `quota` shows it", "the disk quota is used up: %v", err)
	}
	return err
}

// cause is one kind of error of a registry, and its words.
type cause struct {
	is  func(err error) bool
	say func(r *registry, err error) error
}

// causes are tried in this order. The host is named in all of them: there may be a proxy or a redirect in between.
var causes = []cause{
	{is[*diskError], func(_ *registry, err error) error { return err }},
	{is[*digestError], func(r *registry, err error) error {
		return image.Fail(err, "is there a proxy on the way that changes things?", "image %q: registry %q sent a blob with a %v", r.ref.Familiar(), r.ref.Registry, err)
	}},
	{isCertificate, explainCertificate},
	{is[*tokenError], func(r *registry, err error) error {
		return webPage(err, "registry %q: the service that it gets its tokens from sends none, but a web page or the like", r.ref.Registry)
	}},
	{is[*transport.Error], explainAnswer},
	{is[*brokenOff], func(r *registry, err error) error {
		return image.Fail(err, "pull it again: it goes on where it was", "image %q: registry %q is gone half-way: %v", r.ref.Familiar(), r.ref.Registry, innermost(err))
	}},
	{is[*net.DNSError], func(r *registry, err error) error {
		var lookup *net.DNSError
		errors.As(err, &lookup)
		return image.Fail(err, "is the name right, and is there a network?", "registry %q: %s", r.ref.Registry, lookup.Err)
	}},
	{func(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }, func(r *registry, err error) error {
		return image.Fail(err, "does the registry run, and is the port right?", "registry %q: connection refused", r.ref.Registry)
	}},
	{is[*stalled], func(r *registry, err error) error {
		var silent *stalled
		errors.As(err, &silent) // one of several errors it may be: https is tried first
		return image.Fail(err, "pull it again: it goes on where it was", "registry %q: %v", r.ref.Registry, silent)
	}},
	{func(err error) bool { return errors.Is(err, errPlain) || errors.Is(err, http.ErrSchemeMismatch) }, func(r *registry, err error) error {
		return image.Fail(err, "podsh image pull --plain-http "+r.ref.Familiar(), "registry %q speaks no TLS: %v", r.ref.Registry, errPlain)
	}},
	{isGone, func(r *registry, err error) error {
		return image.Fail(err, "pull it again: it goes on where it was", "registry %q: %v", r.ref.Registry, innermost(err))
	}},
}

func is[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}

// isGone: the network, or a registry that ends in the middle.
func isGone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || is[net.Error](err)
}

// explain puts an error of the registry into words.
func (r *registry) explain(err error) error {
	if errors.Is(err, context.Canceled) || hinted(err) {
		return err
	}
	for _, c := range causes {
		if c.is(err) {
			return c.say(r, err)
		}
	}
	return fmt.Errorf("image %q: %w", r.ref.Familiar(), err)
}

// innermost is an error without what http says of its request.
func innermost(err error) error {
	var broken *brokenOff
	var silent *stalled
	if errors.As(err, &broken) && errors.As(err, &silent) {
		return fmt.Errorf("%v after %d of %d bytes", silent, broken.done, broken.size)
	}
	if broken != nil {
		return fmt.Errorf("it ended after %d of %d bytes", broken.done, broken.size)
	}
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	return err
}

// tokenError is an answer of a token service that is none.
type tokenError struct{ err error }

func (e *tokenError) Error() string { return e.err.Error() }
func (e *tokenError) Unwrap() error { return e.err }

// tokenTrouble marks such an answer: it is the only JSON that is read below HTTP.
func tokenTrouble(err error) error {
	if is[*json.SyntaxError](err) || is[*json.UnmarshalTypeError](err) {
		return &tokenError{err}
	}
	return err
}

// isWebPage says whether a text is HTML, or XML.
func isWebPage(text []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(text), []byte("<")) }

func webPage(err error, format string, args ...any) error {
	return image.Fail(err, "is there a proxy on the way, or a page to log in to? a browser shows it", format, args...)
}

func isCertificate(err error) bool {
	return is[*tls.CertificateVerificationError](err) || is[x509.UnknownAuthorityError](err) || is[x509.HostnameError](err) || is[x509.CertificateInvalidError](err)
}

func explainCertificate(r *registry, err error) error {
	unknown := "put its certificate into ~/.config/containers/certs.d/" + r.ref.Registry + "/ca.crt, or say SSL_CERT_FILE=FILE podsh …"
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &hostname):
		return image.Fail(err, "use a name that the certificate has", "registry %q: its certificate is for another host: %v", r.ref.Registry, hostname)
	case errors.As(err, &invalid):
		return image.Fail(err, "is the clock of this machine right?", "registry %q: its certificate is not valid: %v", r.ref.Registry, invalid)
	}
	return image.Fail(err, unknown, "registry %q: its certificate is signed by an unknown authority", r.ref.Registry)
}

// explainAnswer explains what the registry refused.
func explainAnswer(r *registry, err error) error {
	var answer *transport.Error
	errors.As(err, &answer)
	title, host := r.ref.Familiar(), r.ref.Registry
	has := func(codes ...transport.ErrorCode) bool {
		return slices.ContainsFunc(answer.Errors, func(d transport.Diagnostic) bool { return slices.Contains(codes, d.Code) })
	}
	login := fmt.Sprintf("`skopeo login %s` or `podman login %s`, or in ~/.docker/config.json {\"auths\":{%q:{\"auth\":\"BASE64 OF USER:PASSWORD\"}}}", host, host, host)
	if r.problem != nil {
		login = registries.CredentialsHint(r.problem)
	}
	switch code := answer.StatusCode; {
	case busy(code) && r.patience.tooLong():
		return image.Fail(err, "try later; who has logged in is often allowed more", "registry %q has had too many requests, and wants none for %s", host, r.patience.asked())
	case code == http.StatusTooManyRequests:
		return image.Fail(err, "try later; who has logged in is allowed more: "+login, "registry %q: too many requests", host)
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return image.Fail(err, login, "image %q: registry %q wants credentials, or others, or has no such image", title, host)
	case code == http.StatusNotFound && has(transport.NameUnknownErrorCode):
		return image.Fail(errors.Join(image.ErrNoImage, err), "is the name right? without a host it is looked for in docker.io", "registry %q has no image %q", host, r.ref.Repository)
	case code == http.StatusNotFound && has(transport.BlobUnknownErrorCode):
		return image.Fail(err, "it has to be pushed anew", "image %q: registry %q lacks a blob of it", title, host)
	case code == http.StatusNotFound && r.base == "":
		return image.Fail(err, "is the port right?", "%q is no registry: it has no /v2/", host)
	case code == http.StatusNotFound:
		return image.Fail(errors.Join(image.ErrNoImage, err), "`skopeo list-tags docker://"+host+"/"+r.ref.Repository+"` lists the tags", "registry %q has no %q", host, title)
	case code >= 500:
		return image.Fail(err, "try later", "registry %q is out of order: %s", host, http.StatusText(code))
	}
	return fmt.Errorf("image %q: registry %q: %s: %w", title, host, http.StatusText(answer.StatusCode), err)
}
