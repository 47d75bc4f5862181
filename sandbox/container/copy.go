package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/tarcopy"
)

// splitContents tells SRC/. from SRC: then the contents of a folder are meant.
func splitContents(name string) (clean, base string, contents bool) {
	contents = name == "." || strings.HasSuffix(name, "/.")
	clean = path.Clean(name)
	if contents {
		clean += "/."
	} else if strings.HasSuffix(name, "/") && clean != "/" {
		clean += "/"
	}
	base = path.Base(path.Clean(name))
	if base == "/" || base == "." || base == ".." {
		base = "root"
	}
	return clean, base, contents
}

// A Copy is one of files between the host and a pod, or a container that is seen as one.
type Copy struct {
	From, To string // those of the host are absolute
	Owners   bool   // and setuid and setgid are kept, as the numbers that they are where the files come from
}

// CopyOut copies a file or folder of the pod to the host. As with all copies, what ctx interrupts leaves whole files.
func CopyOut(ctx context.Context, f *Files, c Copy) (warning string, err error) {
	clean, base, contents := splitContents(path.Join("/", c.From) + suffixOf(c.From))
	kind, err := kindOf(ctx, f, clean)
	if err != nil {
		return "", err
	}
	root, err := os.OpenRoot("/")
	if err != nil {
		return "", err
	}
	defer root.Close()
	target, err := tarcopy.Destination(root, c.To, kind, base, contents)
	if err != nil {
		return "", fault.WithHint(err, "podsh cp POD:SRC DST: what is SRC, and what is there as DST?")
	}
	defer target.Close()
	if dir := path.Join("/", target.Dir); dir != c.To && path.Join(dir, target.Rename) != c.To && suffixOf(c.To) == "" {
		// The link may have come out of a container, which then would choose what is written to.
		return "", fault.New(nil, []string{"add a / for the folder that it leads to, or remove it"}, "%q is a symbolic link, and nothing is written through it", c.To)
	}
	return pack(ctx, f, clean, base, func(read io.Reader) error {
		err := target.Place(read, tarcopy.Options{Owners: c.Owners})
		switch {
		case err != nil && c.Owners && errors.Is(err, unix.EPERM):
			return fault.WithHint(err, "only root gives files away: without --archive they are yours")
		case err != nil:
			return fault.WithHint(err, "what was copied so far is in %s", path.Join("/", target.Dir))
		}
		return nil
	})
}

// CopyOutTar writes a file or folder of the pod as a tar.
func CopyOutTar(ctx context.Context, f *Files, from string, w io.Writer) (warning string, err error) {
	clean, base, _ := splitContents(path.Join("/", from) + suffixOf(from))
	return pack(ctx, f, clean, base, func(read io.Reader) error {
		_, err := io.Copy(w, read)
		return err
	})
}

// pack has the tar of a file or folder of the pod taken in, until ctx ends.
func pack(ctx context.Context, f *Files, name, base string, take func(io.Reader) error) (warning string, err error) {
	read, write, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer context.AfterFunc(ctx, func() { read.Close() })()
	taken := make(chan error, 1)
	go func() {
		err := take(read)
		read.Close() // one that writes more is told
		taken <- err
	}()
	warning, err = runCopy(ctx, f, nil, write, "pack", name, base)
	write.Close()
	select {
	case takeErr := <-taken:
		if takeErr != nil && (err == nil || !errors.Is(takeErr, io.ErrUnexpectedEOF)) {
			err = takeErr // it is why the other one has ended; the other way round, if the tar breaks off
		}
	case <-later(ctx, proc.UntilKill): // whoever reads it does not
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	warnings := slices.DeleteFunc([]string{lostBelow(f, name), warning}, func(text string) bool { return text == "" })
	return strings.Join(warnings, "; "), err
}

// later is closed a while after the end of ctx.
func later(ctx context.Context, while time.Duration) <-chan struct{} {
	over := make(chan struct{})
	context.AfterFunc(ctx, func() { time.AfterFunc(while, func() { close(over) }) })
	return over
}

// lostBelow is a warning that a volume is gone that was at name, above or below it.
func lostBelow(f *Files, name string) string {
	for _, dst := range f.lost {
		if isIn(name, dst) || isIn(dst, name) {
			return fmt.Sprintf("the volume on %s is not there any more: what lies below it was copied", dst)
		}
	}
	return ""
}

// isIn says whether a path is dir or below it.
func isIn(name, dir string) bool {
	name, dir = path.Clean(name), path.Clean(dir)
	return dir == "/" || name == dir || strings.HasPrefix(name, dir+"/")
}

// kindOf says whether a path of the pod is a folder.
func kindOf(ctx context.Context, f *Files, name string) (isDir bool, err error) {
	read, write, err := os.Pipe()
	if err != nil {
		return false, err
	}
	defer read.Close()
	_, err = runCopy(ctx, f, nil, write, "stat", name)
	write.Close()
	if err != nil {
		return false, err
	}
	said, err := io.ReadAll(io.LimitReader(read, 64))
	return string(bytes.TrimSpace(said)) == "true", err
}

// suffixOf keeps what path.Join takes away: that the contents of a folder are meant, or that it must be one.
func suffixOf(name string) string {
	switch {
	case strings.HasSuffix(name, "/."):
		return "/."
	case strings.HasSuffix(name, "/") && name != "/":
		return "/"
	}
	return ""
}

// CopyIn copies a file or folder of the host to the pod.
func CopyIn(ctx context.Context, f *Files, c Copy) (warning string, err error) {
	clean, base, contents := splitContents(c.From)
	root, err := os.OpenRoot("/")
	if err != nil {
		return "", err
	}
	defer root.Close()
	info, err := tarcopy.Stat(root, clean)
	if err != nil {
		return "", fault.WithHint(err, "podsh cp SRC POD:DST: SRC is a path of the host")
	}
	give := func(write io.Writer) (warning string, err error) {
		packed, err := tarcopy.Pack(root, clean, base, write)
		return leftOut(packed), err
	}
	return placeOf(ctx, f, give, "place", path.Join("/", c.To)+suffixOf(c.To), base,
		strconv.FormatBool(info.IsDir()), strconv.FormatBool(contents), strconv.FormatBool(c.Owners))
}

// CopyInTar unpacks a tar in a folder of the pod.
func CopyInTar(ctx context.Context, f *Files, tar io.Reader, to string, owners bool) error {
	give := func(write io.Writer) (warning string, err error) {
		_, err = io.Copy(write, tar)
		return "", err
	}
	_, err := placeOf(ctx, f, give, "extract", path.Join("/", to), strconv.FormatBool(owners))
	return err
}

// placeOf has a tar that is given unpacked in the pod, until ctx ends.
func placeOf(ctx context.Context, f *Files, give func(io.Writer) (warning string, err error), args ...string) (warning string, err error) {
	if f.mounts != nil {
		hint := "podsh start " + f.pod.Title() + ", and copy it while it runs"
		if f.pod.Upper != "" {
			hint += "; or put it below " + f.pod.Upper + ", where what it has written lies"
		}
		return "", fault.New(fault.ErrExited, []string{hint}, "container %q does not run: files can only be copied out of it", f.pod.Title())
	}
	read, write, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer context.AfterFunc(ctx, func() { write.Close() })() // a tar that breaks off in a file leaves nothing of that
	type outcome struct {
		warning string
		err     error
	}
	given := make(chan outcome, 1)
	go func() {
		warning, err := give(write)
		write.Close()
		given <- outcome{warning, err}
	}()
	_, err = runCopy(ctx, f, read, nil, args...)
	read.Close()
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil: // whoever gives may wait for his own input for ever
		return "", err
	}
	gave := <-given
	if errors.Is(gave.err, unix.EPIPE) {
		gave.err = nil // the tar had ended
	}
	return gave.warning, gave.err
}
