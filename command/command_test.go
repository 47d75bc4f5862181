package command

import (
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// every is main.go's table, which tests of this package can't import.
var every = Table{
	{"Make and join", List{{"create", Create}, {"run", Run}, {"join", Join}}},
	{"Look", List{{"ps", Ps}, {"inspect", Inspect}, {"top", Top}, {"map", Map}}},
	{"Containers", List{
		{"logs", Logs}, {"attach", Attach}, {"cp", Cp}, {"start", Start}, {"restart", Restart},
	}},
	{"Signal and end", List{{"stop", Stop}, {"kill", Kill}, {"wait", Wait}, {"rm", Rm}}},
	{"Images and networks", List{{"image", Image}, {"port", Port}, {"network", Network}}},
	{"The machine, and podsh itself", List{
		{"pause", Pause}, {"doctor", Doctor}, {"completion", Completion}, {"man", Man}, {"version", Version},
	}},
}

func wholeApp() *cli.App { return newApp("0", every.wanted(nil)) }

// TestTable: every is what main.go says, and each command is built by the name that it has.
func TestTable(t *testing.T) {
	ours, mains := valueOf(t, "command/command_test.go", "every"), valueOf(t, "main.go", "commands")
	if mains = strings.ReplaceAll(mains, "command.", ""); ours != mains {
		t.Errorf("every is\n%s\nbut main.go's table is\n%s", ours, mains)
	}
	for _, section := range every {
		for _, c := range section.Commands {
			if built := c.Build(); built.Name != c.Name {
				t.Errorf("%q builds %q", c.Name, built.Name)
			}
		}
	}
}

// valueOf is the source of a variable's value.
func valueOf(t *testing.T, file, name string) string {
	t.Helper()
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	ast.Inspect(parsed, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && spec.Names[0].Name == name {
			err = format.Node(&source, set, spec.Values[0])
		}
		return err == nil
	})
	if err != nil || source.Len() == 0 {
		t.Fatalf("%s: no %s (%v)", file, name, err)
	}
	return source.String()
}
