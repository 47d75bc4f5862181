package image

import (
	"errors"
	"strings"
	"testing"
)

func TestParseReference(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for _, c := range []struct{ text, whole, familiar string }{
		{"busybox", "docker.io/library/busybox:latest", "busybox:latest"},
		{"a", "docker.io/library/a:latest", "a:latest"},
		{"busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"},
		{"team/web", "docker.io/team/web:latest", "team/web:latest"},
		{"docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"},
		{"index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"},
		{"docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"},
		{"library/busybox", "docker.io/library/busybox:latest", "busybox:latest"},
		{"library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"},
		{"localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"},
		{"localhost/x:1", "localhost/x:1", "localhost/x:1"},
		{"host.example/a/b/c:v1.2", "host.example/a/b/c:v1.2", "host.example/a/b/c:v1.2"},
		{"10.0.0.1:80/x", "10.0.0.1:80/x:latest", "10.0.0.1:80/x:latest"},
		{"[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"},
		{"busybox@" + digest, "docker.io/library/busybox@" + digest, "busybox@" + digest},
		{"busybox:1@" + digest, "docker.io/library/busybox:1@" + digest, "busybox:1@" + digest},
		{"a/b__c/d-e--f.g", "docker.io/a/b__c/d-e--f.g:latest", "a/b__c/d-e--f.g:latest"},
		{"x:" + strings.Repeat("t", 128), "docker.io/library/x:" + strings.Repeat("t", 128), "x:" + strings.Repeat("t", 128)},
	} {
		r, err := ParseReference(c.text)
		if err != nil || r.String() != c.whole || r.Familiar() != c.familiar {
			t.Errorf("%q: %q, %q, %v; not %q, %q", c.text, r, r.Familiar(), err, c.whole, c.familiar)
		}
	}
	for _, text := range []string{
		"", " ", "/", ":", "@", "x:", ":1", "x@", "@" + digest, "x@sha256:12", "x@sha512:" + strings.Repeat("0", 128), "x@" + strings.ToUpper(digest),
		"Busybox", "x/Y", "x y", "x//y", "/x", "x/", "-x", "x-", "x..y", "x___y", "x._y", "host:/x", "host:port/x", "host.example:80:90/x", ":80/x",
		"x:-1", "x:" + strings.Repeat("t", 129), strings.Repeat("x", 256), "http://host.example/x", "host_x.y/z\n", "../x", "x/../y",
		strings.Repeat("0a", 32), "oci:foo", "oci-archive:x", "docker-archive:x", "[::1/x", "[zz]/x", "[]/x", "[]:0/x", "[1.2.3.4]/x", "[fe80::1%eth0]/x",
	} {
		r, err := ParseReference(text)
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is %q, %v", text, r, err)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, text := range []string{"busybox", "localhost:5000/a/b:1", "library/a/b", "docker.io/localhost/x", "x@sha256:" + strings.Repeat("0", 64), "a.b/c"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseReference(text)
		if err != nil {
			return
		}
		for _, again := range []string{r.String(), r.Familiar()} {
			if same, err := ParseReference(again); err != nil || same != r {
				t.Errorf("%q is %q, and that is %q, %v", text, again, same, err)
			}
		}
	})
}
