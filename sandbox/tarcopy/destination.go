package tarcopy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// As many links as the kernel follows in one path: path_resolution(7).
const maxLinks = 40

// A Target is where a copy goes: into a folder that is open, whatever becomes of its name meanwhile.
type Target struct {
	Dir    string // its name when it was opened, below root and without links
	Rename string // what the copy is called there; "." if the contents of a folder go into this one itself
	folder *os.File
	shown  string // in words
}

// Close lets go of the folder.
func (t *Target) Close() error { return t.folder.Close() }

// Destination decides where a copy goes, with docker cp's rules, and opens the folder there. Links in dst are followed as
// they are seen inside root: an absolute one starts at root.
func Destination(root *os.Root, dst string, sourceIsDir bool, sourceBase string, sourceDot bool) (*Target, error) {
	dir, rename, err := decide(root, dst, sourceIsDir, sourceBase, sourceDot)
	if err != nil {
		return nil, err
	}
	return openTarget(root, dir, rename, path.Join("/", dir))
}

func openTarget(root *os.Root, dir, rename, shown string) (*Target, error) {
	folder, err := openFolder(root, dir, shown)
	if err != nil {
		return nil, err
	}
	return &Target{dir, rename, folder, shown}, nil
}

// openFolder opens a folder by a name that has no links: if it has one by now, somebody has exchanged what was looked at.
func openFolder(root *os.Root, dir, shown string) (*os.File, error) {
	base, err := root.Open(".")
	if err != nil {
		return nil, call("open", shown, err)
	}
	defer base.Close()
	folder, err := openBelow(base, dir, unix.O_RDONLY)
	if err != nil {
		return nil, call("open", shown, err)
	}
	return folder, nil
}

// decide says into which folder below root a copy goes, and what it is called there.
func decide(root *os.Root, dst string, sourceIsDir bool, sourceBase string, sourceDot bool) (dir, rename string, err error) {
	if dst == "" {
		return "", "", errors.New("the destination has no name")
	}
	if sourceDot && !sourceIsDir {
		return "", "", fmt.Errorf("%q is not a folder, so it has no contents to copy", sourceBase)
	}
	name, info, err := resolve(root, dst, true)
	if err != nil {
		return "", "", err
	}
	wantsFolder := strings.HasSuffix(dst, "/") || isDot(dst)
	switch {
	case info == nil && wantsFolder && !sourceIsDir:
		return "", "", fmt.Errorf("no folder %q", dst)
	case info == nil:
		return path.Dir(name), path.Base(name), nil
	case !info.IsDir() && sourceIsDir:
		return "", "", fmt.Errorf("%q is not a folder, and a folder cannot be copied onto it", dst)
	case !info.IsDir() && wantsFolder:
		return "", "", fmt.Errorf("%q is not a folder", dst)
	case !info.IsDir() && !info.Mode().IsRegular():
		return "", "", fmt.Errorf("%q is neither a file nor a folder", dst)
	case !info.IsDir():
		return path.Dir(name), path.Base(name), nil
	case sourceDot, sourceIsDir && (sourceBase == "/" || sourceBase == "."):
		return name, ".", nil
	}
	if !component(sourceBase) || sourceBase == "." {
		return "", "", fmt.Errorf("%q is no name that a copy can have", sourceBase)
	}
	return name, sourceBase, nil
}

// isDot says whether a name means a folder's contents, or a link's target: it ends in "/.".
func isDot(name string) bool { return name == "." || strings.HasSuffix(name, "/.") }

// follows says whether a name means what a link leads to, which is a folder.
func follows(name string) bool { return isDot(name) || strings.HasSuffix(name, "/") }

// component says whether a name is one component of a path, and leads nowhere else.
func component(name string) bool {
	return name != "" && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// resolve turns a name into one without links, below root: as the kernel would, were root "/". os.Root by
// itself refuses absolute links, of which containers are full. The last component may be missing: then info
// is nil. follow says whether it is followed if it is a link.
//
// The tree may change meanwhile; then os.Root, which opens the result, still doesn't lead out of root.
func resolve(root *os.Root, name string, follow bool) (string, fs.FileInfo, error) {
	done, rest := ".", meaningful(name)
	shown := func() string { // as the name was given
		if strings.HasPrefix(name, "/") {
			return path.Join("/", done)
		}
		return done
	}
	info, err := root.Lstat(".")
	if err != nil {
		return "", nil, call("stat", name, err)
	}
	for links := 0; len(rest) > 0; {
		first := rest[0]
		rest = rest[1:]
		if !info.IsDir() {
			return "", nil, fmt.Errorf("%q is not a folder", shown())
		}
		// Of "..", Join makes the folder above, and Clean lets none lead above root.
		done = path.Clean("/" + path.Join(done, first))[1:]
		if done == "" {
			done = "."
		}
		info, err = root.Lstat(done)
		switch {
		case errors.Is(err, unix.ENOENT) && len(rest) == 0:
			return done, nil, nil
		case errors.Is(err, unix.ENOENT):
			return "", nil, fmt.Errorf("no folder %q", shown())
		case err != nil:
			return "", nil, call("stat", shown(), err)
		case info.Mode().Type() != fs.ModeSymlink || len(rest) == 0 && !follow:
			continue
		}
		if links++; links > maxLinks {
			return "", nil, fmt.Errorf("%q leads through too many symbolic links", name)
		}
		target, err := root.Readlink(done)
		if err != nil {
			return "", nil, call("readlink", shown(), err)
		}
		done = path.Dir(done)
		if strings.HasPrefix(target, "/") {
			done = "."
		}
		rest = append(meaningful(target), rest...)
		if info, err = root.Lstat(done); err != nil {
			return "", nil, call("stat", shown(), err)
		}
	}
	return done, info, nil
}

// meaningful are the components of a name that lead somewhere.
func meaningful(name string) []string {
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return parts
}
