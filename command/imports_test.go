package command

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// house is what the import paths of this module's packages begin with.
const house = "github.com/podsh/podsh/"

// mayImport says which of the house's packages each of them may import; a package that is not here may not be. Tests may
// import more.
var mayImport = map[string]string{
	".": "command",
	"command": "image image/program network network/control network/program nsenter rootfs sandbox sandbox/ask sandbox/container sandbox/crilog sandbox/disk sandbox/doctor sandbox/fault sandbox/ids sandbox/member sandbox/plan sandbox/pod sandbox/proc sandbox/spec sandbox/step sandbox/store sandbox/supervise sandbox/view sandbox/wire " +
		"image/helper network/helper", // those two where one program is all: linked.go
	"sandbox":            "image network network/control nsenter sandbox/ask sandbox/container sandbox/disk sandbox/doctor sandbox/fault sandbox/files sandbox/ids sandbox/machine sandbox/member sandbox/perform sandbox/plan sandbox/pod sandbox/proc sandbox/spec sandbox/step sandbox/store sandbox/wire",
	"sandbox/fault":      "",
	"sandbox/ids":        "sandbox/fault",
	"sandbox/files":      "",
	"sandbox/spec":       "network nsenter rootfs sandbox/fault sandbox/ids",
	"sandbox/proc":       "sandbox/fault sandbox/ids",
	"sandbox/pod":        "network rootfs sandbox/fault sandbox/files sandbox/ids sandbox/proc sandbox/spec",
	"sandbox/step":       "nsenter",
	"sandbox/plan":       "network nsenter rootfs sandbox/fault sandbox/ids sandbox/pod sandbox/spec sandbox/step",
	"sandbox/store":      "network sandbox/fault sandbox/files sandbox/pod sandbox/proc sandbox/spec",
	"sandbox/member":     "sandbox/fault sandbox/pod sandbox/proc sandbox/store",
	"sandbox/doctor":     "nsenter rootfs sandbox/fault sandbox/ids sandbox/plan sandbox/spec sandbox/step sandbox/store",
	"sandbox/perform":    "nsenter rootfs sandbox/doctor sandbox/fault sandbox/ids sandbox/plan sandbox/pod sandbox/proc sandbox/step sandbox/store seccomp",
	"sandbox/machine":    "image rootfs sandbox/doctor sandbox/fault sandbox/files sandbox/ids sandbox/perform sandbox/plan sandbox/pod sandbox/proc sandbox/spec sandbox/store",
	"sandbox/disk":       "image image/program nsenter sandbox/doctor sandbox/fault sandbox/files sandbox/ids sandbox/machine sandbox/perform sandbox/plan sandbox/pod sandbox/proc sandbox/spec sandbox/step sandbox/store",
	"sandbox/ask":        "network/control sandbox/fault sandbox/pod sandbox/proc sandbox/store",
	"sandbox/wire":       "network network/control network/program nsenter sandbox/ask sandbox/doctor sandbox/fault sandbox/files sandbox/machine sandbox/perform sandbox/plan sandbox/pod sandbox/proc sandbox/spec sandbox/step sandbox/store",
	"sandbox/container":  "image network/control nsenter rootfs sandbox/disk sandbox/doctor sandbox/fault sandbox/files sandbox/ids sandbox/machine sandbox/perform sandbox/plan sandbox/pod sandbox/proc sandbox/spec sandbox/step sandbox/store sandbox/tarcopy sandbox/wire",
	"sandbox/supervise":  "network/control nsenter sandbox sandbox/ask sandbox/container sandbox/crilog sandbox/doctor sandbox/fault sandbox/files sandbox/pod sandbox/proc sandbox/spec sandbox/store",
	"sandbox/view":       "network network/control sandbox/container sandbox/fault sandbox/ids sandbox/member sandbox/pod sandbox/proc sandbox/spec sandbox/store sandbox/wire",
	"sandbox/crilog":     "",
	"sandbox/tarcopy":    "",
	"rootfs":             "",
	"seccomp":            "",
	"nsenter":            "",
	"image":              "",
	"image/compression":  "",
	"image/registries":   "image",
	"image/transfer":     "image image/compression image/registries",
	"image/unpack":       "image image/compression",
	"image/helper":       "image image/transfer image/unpack",
	"image/podsh-image":  "image/helper nsenter",
	"image/program":      "nsenter",
	"image/program/pack": "",
	"network":            "",
	"network/share":      "",
	"network/control":    "network network/share",
	"network/relay":      "network/share",
	"network/stack":      "network/share",
	"network/names":      "network/share",
	"network/link":       "network",
	"network/helper":     "network network/control network/link network/names network/relay network/stack nsenter seccomp",
	"network/podsh-net":  "network/helper",
	"network/program":    "nsenter",
	"network/testns":     "", // for tests
	"network/testurgent": "", // for tests
}

// pure are the packages that think and do nothing: what they know of the machine they are told.
var pure = []string{"sandbox/plan", "sandbox/step", "sandbox/spec", "sandbox/ids", "sandbox/pod", "sandbox/fault"}

// notPure are the imports by which one could look at the machine, or do something to it. Of golang.org/x/sys/unix there are
// constants and types to be had, and conversions to unixTypes.
var (
	notPure   = []string{"os", "os/exec", "net", "syscall", "io/fs"}
	unixTypes = []string{"Errno", "Signal"}
)

// mayName says which files, of neither the commands nor a program's main, name the standard streams, and why.
var mayName = map[string]string{
	"sandbox/container/copier.go":  "CopyMain is a program's main function, of who copies",
	"sandbox/container/join.go":    "a command that joins is given podsh's own",
	"sandbox/container/streams.go": "those of podsh's own that a command is not to have itself are copied",
	"sandbox/disk/layers.go":       "the program of images says on podsh's own standard error what can't be said otherwise",
	"nsenter/joiner.go":            "the joiner is given podsh's own",
	"image/transfer/target.go":     "the program of images writes an archive to its standard output",
}

// sources are the files of the house's packages, parsed, by their names; tests are not among them.
func sources(t *testing.T, mode parser.Mode) map[string]*ast.File {
	t.Helper()
	return sourcesAt(t, token.NewFileSet(), mode)
}

// sourcesAt are the same, with their places.
func sourcesAt(t *testing.T, positions *token.FileSet, mode parser.Mode) map[string]*ast.File {
	t.Helper()
	files := map[string]*ast.File{}
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		switch base := filepath.Base(name); {
		case err != nil:
			return err
		case entry.IsDir():
			if name != "." && (strings.HasPrefix(base, ".") || base == "testdata" || base == "vendor") { // as the go command does
				return filepath.SkipDir
			}
			return nil
		case !strings.HasSuffix(base, ".go") || strings.HasSuffix(base, "_test.go"):
			return nil
		}
		files[name], err = parser.ParseFile(positions, name, nil, mode)
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources (%v)", err)
	}
	return files
}

func importsOf(t *testing.T, file *ast.File) []string {
	t.Helper()
	var paths []string
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// TestImports holds the house's packages to mayImport, whatever the build tags.
func TestImports(t *testing.T) {
	unseen := maps.Clone(mayImport)
	for name, file := range sources(t, parser.ImportsOnly) {
		dir := filepath.ToSlash(filepath.Dir(name))
		allowed, known := mayImport[dir]
		delete(unseen, dir)
		if !known {
			t.Errorf("%s: which of the house's packages it may import is not said", dir)
		}
		for _, path := range importsOf(t, file) {
			other, ours := strings.CutPrefix(path, house)
			if ours && !slices.Contains(strings.Fields(allowed), other) {
				t.Errorf("%s: package %s may not import %s", name, dir, other)
			}
		}
	}
	for dir := range unseen {
		t.Errorf("there is no package %s", dir)
	}
}

// TestPure holds the packages that only think to that.
func TestPure(t *testing.T) {
	unseen := slices.Clone(pure)
	for name, file := range sources(t, 0) {
		dir := filepath.ToSlash(filepath.Dir(name))
		if !slices.Contains(pure, dir) {
			continue
		}
		unseen = slices.DeleteFunc(unseen, func(seen string) bool { return seen == dir })
		for _, path := range importsOf(t, file) {
			if slices.Contains(notPure, path) {
				t.Errorf("%s: package %s only thinks, and may not import %s", name, dir, path)
			}
		}
		for _, called := range calledOf(file, "unix") {
			if !slices.Contains(unixTypes, called) {
				t.Errorf("%s: package %s only thinks, and may not call unix.%s", name, dir, called)
			}
		}
	}
	for _, dir := range unseen {
		t.Errorf("there is no package %s", dir)
	}
}

// calledOf lists what a file calls of a package, or converts to.
func calledOf(file *ast.File, of string) []string {
	var called []string
	ast.Inspect(file, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if selector, ok := call.Fun.(*ast.SelectorExpr); ok {
				if x, ok := selector.X.(*ast.Ident); ok && x.Name == of {
					called = append(called, selector.Sel.Name)
				}
			}
		}
		return true
	})
	return called
}

// TestOnlyCommandsPrint: text for people comes from package command alone, and from programs' mains.
func TestOnlyCommandsPrint(t *testing.T) {
	unneeded := maps.Clone(mayName)
	for name, file := range sources(t, 0) {
		if file.Name.Name == "main" || file.Name.Name == "command" {
			continue
		}
		if paths := importsOf(t, file); slices.Contains(paths, "log") || slices.Contains(paths, "log/slog") {
			t.Errorf("%s: errors are values, and no log has them", name)
		}
		if _, excepted := mayName[filepath.ToSlash(name)]; excepted && len(printing(file)) > 0 {
			delete(unneeded, filepath.ToSlash(name))
			continue
		}
		for _, what := range printing(file) {
			t.Errorf("%s: %s is for package command", name, what)
		}
	}
	for name := range unneeded {
		t.Errorf("%s names no standard stream", name)
	}
}

// printing lists what in a file prints, or names a standard stream of output.
func printing(file *ast.File) []string {
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			of, ok := n.X.(*ast.Ident)
			if ok && (of.Name == "os" && (n.Sel.Name == "Stdout" || n.Sel.Name == "Stderr") || of.Name == "fmt" && strings.HasPrefix(n.Sel.Name, "Print")) {
				found = append(found, of.Name+"."+n.Sel.Name)
			}
		case *ast.CallExpr:
			if called, ok := n.Fun.(*ast.Ident); ok && (called.Name == "print" || called.Name == "println") {
				found = append(found, called.Name)
			}
		}
		return true
	})
	return found
}
