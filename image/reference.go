package image

import (
	"fmt"
	"net/netip"
	"strings"
)

// Reference names an image in a registry, as docker and the OCI distribution spec have it.
type Reference struct {
	Registry   string // host, maybe with a port
	Repository string
	Tag        string // "" only with a digest
	Digest     string // "sha256:…", or ""
}

// Where names without a host are looked for, and what they mean there.
const (
	hub           = "docker.io"
	hubLibrary    = "library/"
	localRegistry = "localhost" // of images that are from none
)

// String is the whole reference.
func (r Reference) String() string {
	text := r.Registry + "/" + r.Repository
	if r.Tag != "" {
		text += ":" + r.Tag
	}
	if r.Digest != "" {
		text += "@" + r.Digest
	}
	return text
}

// Familiar is the reference as people write it.
func (r Reference) Familiar() string {
	text := strings.TrimPrefix(r.String(), hub+"/")
	for _, short := range []string{strings.TrimPrefix(text, hubLibrary), text} {
		if again, err := ParseReference(short); err == nil && again == r { // library/a/b is not a/b
			return short
		}
	}
	return r.String()
}

// Familiar is a whole name as people write it.
func Familiar(name string) string {
	r, err := ParseReference(name)
	if err != nil {
		return name
	}
	return r.Familiar()
}

// forms are what other places of images are called, by podsh and by others, and what there is in their place.
var forms = []struct{ prefix, why, hint string }{
	{"oci:", "that is a layout", "a name is needed here: %s, or another"},
	{"oci-archive:", "that is an archive", "`podsh image load -i %s`, and then its name"},
	{"docker-archive:", "that is an archive", "`podsh image load -i %s`, and then its name"},
	{"docker://", "names of registries have no prefix", "without docker://: %s"},
	{"https://", "it is no address of a web page", "without https://: %s"},
	{"http://", "it is no address of a web page", "without http://, and with --plain-http: podsh image pull --plain-http %s"},
	{"docker-daemon:", "docker's own images are not read", "docker save %s | podsh image load"},
	{"containers-storage:", "podman's own images are not read", "podman save %s | podsh image load"},
	{"dir:", "that is a folder of skopeo's", "skopeo copy dir:%s oci:LAYOUT:NAME, and then oci:LAYOUT:NAME"},
}

// ParseReference reads [HOST[:PORT]/]NAME[:TAG][@DIGEST]. A first part is a host if it has a dot or a port, or is
// localhost.
func ParseReference(text string) (Reference, error) {
	bad := func(why string) (Reference, error) {
		return Reference{}, Fail(ErrInvalid, "[HOST[:PORT]/]NAME[:TAG][@sha256:…], such as nginx or localhost:5000/web:1.0", "malformed image name %q: %s", text, why)
	}
	if isHex(text) {
		return bad("that is an id")
	}
	for _, form := range forms {
		if rest, ok := strings.CutPrefix(text, form.prefix); ok {
			return Reference{}, Fail(ErrInvalid, fmt.Sprintf(form.hint, rest), "malformed image name %q: %s", text, form.why)
		}
	}
	r := Reference{Registry: hub}
	rest, digest, hasDigest := strings.Cut(text, "@")
	if hasDigest {
		if err := CheckDigest(digest, "it"); otherAlgorithm(digest) {
			return bad(err.Error())
		}
		if !IsDigest(digest) {
			return bad("a digest is sha256: and 64 hex digits")
		}
		r.Digest = digest
	}
	if first, behind, ok := strings.Cut(rest, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		if !isHost(first) {
			return bad("no host and port stands before the first /")
		}
		r.Registry, rest = first, behind
	}
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		rest, r.Tag = rest[:i], rest[i+1:]
		if !isTag(r.Tag) {
			return bad("a tag has letters, digits, and _ . - but not first; 128 at most")
		}
	}
	if r.Registry == "index.docker.io" {
		r.Registry = hub
	}
	if r.Registry == hub && !strings.Contains(rest, "/") {
		rest = hubLibrary + rest
	}
	if !isRepository(rest) {
		return bad("a name has lower case letters and digits, and between them . _ - or /")
	}
	r.Repository = rest
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return r, nil
}

const (
	lower    = "abcdefghijklmnopqrstuvwxyz"
	digits   = "0123456789"
	letters  = lower + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	tagChars = letters + digits + "_"
)

func only(text, of string) bool { return strings.Trim(text, of) == "" }

// IsDigest says whether a text is a digest: of sha256, all that podsh knows.
func IsDigest(text string) bool {
	hex, ok := strings.CutPrefix(text, "sha256:")
	return ok && isHex(hex)
}

// lengths are how many hex digits a digest has, by the other algorithms that image-spec, "descriptor.md", knows.
var lengths = map[string]int{"sha384": 96, "sha512": 128, "blake3": 64}

func otherAlgorithm(digest string) bool {
	algorithm, hex, _ := strings.Cut(digest, ":")
	n := lengths[algorithm]
	return n > 0 && len(hex) == n && only(hex, digits+"abcdef")
}

// CheckDigest says what is wrong with a digest, and what it is of.
func CheckDigest(digest, of string) error {
	switch {
	case IsDigest(digest):
		return nil
	case otherAlgorithm(digest):
		algorithm, _, _ := strings.Cut(digest, ":")
		return Fail(ErrInvalid, "push or write it anew with digests of sha256, as all tools do of themselves",
			"the digest of %s is one of %s, and podsh knows only sha256", of, algorithm)
	}
	return fmt.Errorf("malformed digest %q of %s", digest, of)
}

func isHex(text string) bool { return len(text) == 64 && only(text, digits+"abcdef") }

func isTag(text string) bool {
	return text != "" && len(text) <= 128 && strings.Contains(tagChars, text[:1]) && only(text, tagChars+".-")
}

func isHost(text string) bool {
	host, port, hasPort := text, "", false
	if i := strings.LastIndexByte(text, ':'); i >= 0 && !strings.HasSuffix(text, "]") {
		host, port, hasPort = text[:i], text[i+1:], true
	}
	if hasPort && (port == "" || !only(port, digits)) || host == "" {
		return false
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		ip, err := netip.ParseAddr(host[1 : len(host)-1])
		return err == nil && ip.Is6() && ip.Zone() == ""
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || strings.Trim(label, "-") != label || !only(label, letters+digits+"-") {
			return false
		}
	}
	return true
}

// isRepository: components of lower case letters and digits, separated inside by one dot, one or two underscores, or
// any number of dashes; distribution-spec, "Pulling manifests".
func isRepository(text string) bool {
	if len(text) > 255 {
		return false
	}
	for part := range strings.SplitSeq(text, "/") {
		if part == "" || strings.Trim(part, "._-") != part || !only(part, lower+digits+"._-") {
			return false
		}
		for _, wrong := range []string{"..", "___", "._", "_.", ".-", "-.", "_-", "-_"} {
			if strings.Contains(part, wrong) {
				return false
			}
		}
	}
	return true
}
