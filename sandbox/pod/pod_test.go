package pod

import (
	"testing"

	"github.com/podsh/podsh/sandbox/spec"
)

func TestMemberNamespace(t *testing.T) {
	kinds := func(pid, mnt, user string) map[string]spec.Choice {
		return map[string]spec.Choice{"pid": {Kind: pid}, "mnt": {Kind: mnt}, "user": {Kind: user}}
	}
	for _, test := range []struct {
		namespaces map[string]spec.Choice
		want       string
	}{
		{kinds("new", "new", "new"), "pid"},
		{kinds("host", "new", "new"), "mnt"},
		{kinds("pod", "new", "pod"), "mnt"},
		{kinds("path", "host", "new"), "user"},
		{kinds("host", "host", "host"), ""},
		{nil, ""},
	} {
		pod := &Pod{Namespaces: test.namespaces}
		if got := pod.MemberNamespace(); got != test.want {
			t.Errorf("%v: %q, not %q", test.namespaces, got, test.want)
		}
	}
}
