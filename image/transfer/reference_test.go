package transfer

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/podsh/podsh/image"
)

// FuzzParseReference: what package image takes for a name is one to go-containerregistry as well, and the same.
func FuzzParseReference(f *testing.F) {
	for _, text := range []string{
		"busybox", "a", "busybox:1", "localhost/x", "localhost:5000/a/b:1", "docker.io/x", "index.docker.io/a/b", "index.docker.io0/a", "host.example/x@sha256:" + strings.Repeat("0", 64),
		"a.b/c:d", "[::1]:5000/x", "x:1@sha256:" + strings.Repeat("f", 64), "a__b/c--d",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ours, err := image.ParseReference(text)
		if err != nil {
			return
		}
		whole := ours.String()
		if ours.Tag != "" && ours.Digest != "" {
			whole = strings.Replace(whole, ":"+ours.Tag+"@", "@", 1) // it takes no notice of the tag
		}
		theirs, err := name.ParseReference(whole, name.WeakValidation)
		if err != nil {
			t.Fatalf("%q is %q here, and there %v", text, ours, err)
		}
		registry := theirs.Context().RegistryStr()
		if registry == name.DefaultRegistry {
			registry = "docker.io"
		}
		which := ours.Digest
		if which == "" {
			which = ours.Tag
		}
		if registry != ours.Registry || theirs.Context().RepositoryStr() != ours.Repository || theirs.Identifier() != which {
			t.Errorf("%q is %q here, and there %q", text, ours, theirs)
		}
	})
}
