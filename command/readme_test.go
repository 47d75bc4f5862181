package command

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// readmeBlocks returns what stands in the README's fenced blocks of a language.
func readmeBlocks(t *testing.T, language string) []string {
	t.Helper()
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(readme(t), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) == 0 {
		t.Fatalf("the README has no ```%s", language)
	}
	return blocks
}

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// example is one command of a console block, and the lines that it prints.
type example struct {
	command string
	output  []string
}

func parseExamples(block string) []example {
	var examples []example
	for line := range strings.Lines(block) {
		line = strings.TrimRight(line, "\n")
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			examples = append(examples, example{command: command})
		} else if last := len(examples) - 1; last >= 0 {
			examples[last].output = append(examples[last].output, line)
		}
	}
	return examples
}

// TestReadmeExamples types what the README shows, as whoever runs the tests, and looks for what it says is
// printed. A pod's numbers, and what only root or only a user sees, are not compared.
func TestReadmeExamples(t *testing.T) {
	for i, block := range readmeBlocks(t, "console") {
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			home, err := newHome(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if left := home.clear(); left != "" {
					t.Errorf("left over: %s", left)
				}
			}()
			for _, e := range parseExamples(block) {
				e.try(t, home)
			}
			if out, _, err := home.run("ps", "-a", "-q"); out != "" || err != nil {
				t.Errorf("the example leaves pods behind: %q (%v)", out, err)
			}
		})
	}
}

// awaitLog waits until a container has written something.
func awaitLog(ctx context.Context, t *testing.T, home *home, container string) {
	t.Helper()
	container = container[strings.LastIndex(container, "\n")+1:] // behind a warning, if there is one
	for ; ; time.Sleep(10 * time.Millisecond) {
		text, stderr, err := home.run("logs", container)
		if text != "" {
			return
		}
		if err != nil || ctx.Err() != nil {
			t.Fatalf("podsh logs %s: %v\n%s", container, err, stderr)
		}
	}
}

func (e example) try(t *testing.T, home *home) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", e.command)
	cmd.Dir, cmd.Env = home.dir, home.env()
	out, err := cmd.CombinedOutput()
	if strings.HasPrefix(e.command, "podsh run -d ") { // a person types the next line later than it has said something
		awaitLog(ctx, t, home, strings.TrimSpace(string(out)))
	}
	want := strings.Join(e.output, "\n")
	refused := strings.Contains(want, "error: ") || strings.Contains(want, ": cannot ")
	if (err != nil) != refused {
		t.Errorf("$ %s\n%s%v", e.command, out, err)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "podsh: warning: ") { // of a user without subordinate ids
			got = append(got, strings.TrimRight(line, "\n"))
		}
	}
	if !sameLines(e.output, got) {
		t.Errorf("$ %s\nprints:\n%s\nthe README says:\n%s", e.command, out, want)
	}
}

// sameLines compares lines; a wanted line … stands for any number of them.
func sameLines(want, got []string) bool {
	switch {
	case len(want) == 0:
		return len(got) == 0
	case want[0] == "…":
		for i := range len(got) + 1 {
			if sameLines(want[1:], got[i:]) {
				return true
			}
		}
		return false
	}
	return len(got) > 0 && sameWords(want[0], got[0]) && sameLines(want[1:], got[1:])
}

// sameWords compares two lines word by word. Words with a digit (ids, pids, ages) or with = (a namespace that
// is shared: root's pods share more of them) may differ.
func sameWords(want, got string) bool {
	return slices.EqualFunc(strings.Fields(want), strings.Fields(got), func(w, g string) bool {
		return w == g || strings.ContainsAny(w, "0123456789=") && strings.ContainsAny(g, "0123456789=")
	})
}

func TestReadmeNamesEveryCommand(t *testing.T) {
	text := readme(t)
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("[`$] ?podsh ([a-z]+)").FindAllStringSubmatch(text, -1) {
		named[m[1]] = true
	}
	var flags []string
	app := wholeApp()
	for _, command := range allCommands(app) {
		flags = append(flags, flagNames(command.Command)...)
	}
	for _, command := range app.Commands {
		if !named[command.Name] {
			t.Errorf("podsh %s is not in the README", command.Name)
		}
		delete(named, command.Name)
	}
	for name := range named {
		t.Errorf("the README names podsh %s, which there is not", name)
	}
	for _, m := range regexp.MustCompile(`[ \x60]--([a-z][a-z0-9-]*)`).FindAllStringSubmatch(text, -1) {
		if m[1] != "help" && !slices.Contains(flags, m[1]) {
			t.Errorf("the README names --%s, which is no flag", m[1])
		}
	}
}

// TestReadmeNamesFilesThatExist: links, and the scripts that a reader is told to run.
func TestReadmeNamesFilesThatExist(t *testing.T) {
	for _, m := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(readme(t), -1) {
		if _, err := os.Stat(filepath.FromSlash(m[1])); err != nil {
			t.Errorf("a link leads nowhere: %v", err)
		}
	}
	for _, block := range readmeBlocks(t, "sh") {
		for _, script := range regexp.MustCompile(`(?m)^scripts/\w+`).FindAllString(block, -1) {
			if info, err := os.Stat(script); err != nil || info.Mode()&0o111 == 0 {
				t.Errorf("%s can't be run (%v)", script, err)
			}
		}
	}
}
