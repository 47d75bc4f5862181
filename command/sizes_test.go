package command

import (
	"go/ast"
	"go/token"
	"path/filepath"
	"testing"
)

// How much of it a person can have in view at once, in lines: tests are not counted, comments are.
const (
	mostOfPackage  = 3000
	mostOfFile     = 400
	mostOfFunction = 60
)

// packageBounds are those of packages that have bounds of their own: sandbox is the verbs alone, and command is larger than
// a package should be, and is to become no larger.
var packageBounds = map[string]int{
	"sandbox": 2000,
	"command": 7000, // a file a verb, none of which needs another
}

// TestSizes holds packages, files and functions to their bounds.
func TestSizes(t *testing.T) {
	packages := map[string]int{}
	positions := token.NewFileSet()
	for name, file := range sourcesAt(t, positions, 0) {
		lines := positions.File(file.Pos()).LineCount()
		packages[filepath.ToSlash(filepath.Dir(name))] += lines
		if lines > mostOfFile {
			t.Errorf("%s has %d lines, and may have %d", name, lines, mostOfFile)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if function, ok := n.(*ast.FuncDecl); ok {
				if length := linesOf(positions, n); length > mostOfFunction {
					t.Errorf("%s: %s has %d lines, and may have %d", name, function.Name.Name, length, mostOfFunction)
				}
			}
			return true
		})
	}
	for dir, lines := range packages {
		bound := mostOfPackage
		if own, ok := packageBounds[dir]; ok {
			bound = own
		}
		if lines > bound {
			t.Errorf("package %s has %d lines, and may have %d", dir, lines, bound)
		}
	}
	for dir := range packageBounds {
		if packages[dir] == 0 {
			t.Errorf("there is no package %s", dir)
		}
	}
}

// linesOf counts the lines that a piece of source stands on.
func linesOf(positions *token.FileSet, n ast.Node) int {
	return positions.Position(n.End()).Line - positions.Position(n.Pos()).Line + 1
}
