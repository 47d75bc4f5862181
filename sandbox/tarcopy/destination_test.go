package tarcopy

import (
	"os"
	"strings"
	"testing"
)

func TestDestination(t *testing.T) {
	dir := t.TempDir()
	grow(t, dir, "d a/b", "f file x", "p fifo", "l abs /a", "l up ../../../a", "l tofile a/../file",
		"l dangling /a/new", "l loop loop", "l top /", "l a/self .")
	root := openRoot(t, dir)
	for _, c := range []struct{ dst, source, want string }{
		{"a", "f src", "a src"},
		{"/a/", "f src", "a src"},
		{"a/.", "f src", "a src"},
		{"/", "f src", ". src"},
		{".", "f src", ". src"},
		{"../..", "f src", ". src"},
		{"abs/b", "f src", "a/b src"},
		{"up", "f src", "a src"},
		{"top/abs/self/self/../a/b", "f src", "a/b src"},
		{"tofile", "f src", ". file"},
		{"dangling", "f src", "a new"},
		{"file", "f src", ". file"},
		{"a/new", "f src", "a new"},
		{"a/new/", "f src", `no folder "a/new/"`},
		{"no/new", "f src", `no folder "no"`},
		{"no/../new", "f src", `no folder "no"`},
		{"file/", "f src", `"file/" is not a folder`},
		{"file/new", "f src", `"file" is not a folder`},
		{"file/..", "f src", `"file" is not a folder`},
		{"fifo", "f src", `"fifo" is neither a file nor a folder`},
		{"loop", "f src", `"loop" leads through too many symbolic links`},
		{"", "f src", "the destination has no name"},
		{"a", "f ..", `".." is no name that a copy can have`},
		{"a", "f .", `"." is no name that a copy can have`},

		{"a", "d src", "a src"},
		{"a/new", "d src", "a new"},
		{"a/new/", "d src", "a new"},
		{"no/new", "d src", `no folder "no"`},
		{"file", "d src", `"file" is not a folder, and a folder cannot be copied onto it`},
		{"a", "d /", "a ."},

		{"a", ". src", "a ."},
		{"/", ". src", ". ."},
		{"a/new", ". src", "a new"},
		{"file", ". src", `"file" is not a folder, and a folder cannot be copied onto it`},
		{"a", "x src", `"src" is not a folder, so it has no contents to copy`},
	} {
		t.Run(strings.ReplaceAll(c.source+" "+c.dst, "/", "|"), func(t *testing.T) {
			kind, base, _ := strings.Cut(c.source, " ")
			target, err := Destination(root, c.dst, kind == "d" || kind == ".", base, kind == "." || kind == "x")
			var got string
			if err != nil {
				got = err.Error()
			} else {
				defer target.Close()
				got = target.Dir + " " + target.Rename
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// A folder that is exchanged for a link after it was looked at gets nothing, and neither does what the link leads to.
func TestPlaceWhereItWasOpened(t *testing.T) {
	top := t.TempDir()
	grow(t, top, "d shared/to", "d secret")
	target, err := Destination(openRoot(t, top), "/shared/to", false, "x", false)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if err := os.Rename(top+"/shared/to", top+"/shared/was"); err != nil {
		t.Fatal(err)
	}
	grow(t, top, "l shared/to ../secret")
	if err := target.Place(archive("f x new"), Options{}); err != nil {
		t.Fatal(err)
	}
	if got, want := shown(t, top, ""), "d secret\nd shared\nd shared/was\nf shared/was/x new\nl shared/to ../secret"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What was exchanged between the look and the opening is not gone through either.
func TestOpenTargetThroughLink(t *testing.T) {
	top := t.TempDir()
	grow(t, top, "d secret/in", "l to secret", "l secret/out /")
	for _, dir := range []string{"to", "to/in", "secret/out", "../"} {
		if target, err := openTarget(openRoot(t, top), dir, "x", dir); err == nil {
			target.Close()
			t.Errorf("%s was opened", dir)
		}
	}
}
