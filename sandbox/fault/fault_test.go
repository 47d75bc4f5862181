package fault

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
)

// TestHints: those of an error and of all that it wraps, the outermost first.
func TestHints(t *testing.T) {
	inner := WithHint(io.EOF, "plug %d in", 1)
	err := fmt.Errorf("load: %w", errors.Join(WithHints(inner, []string{"look", "listen"}), Invalid("no %q", "x")))
	if got, want := Hints(err), []string{"look", "listen", "plug 1 in"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if !errors.Is(err, io.EOF) || !errors.Is(err, ErrInvalid) {
		t.Errorf("%v is no longer what it wraps", err)
	}
	if err.Error() != "load: EOF\nno \"x\"" {
		t.Errorf("%q", err)
	}
}

func TestWords(t *testing.T) {
	words := []string{"outbound", "none", "host", "pasta"}
	for text, want := range map[string]string{"outbond": "outbound", "otubound": "outbound", "hosts": "host", "x": "", "slirp": "", "": ""} {
		if got := Nearest(text, words); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := DidYouMean("noen", words, "see --help"); got != `did you mean "none"? see --help` {
		t.Error(got)
	}
	for want, list := range map[string][]string{"": nil, "a": {"a"}, "a and b": {"a", "b"}, "a, b and c": {"a", "b", "c"}} {
		if got := Enumerate(list); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
