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

// above is the folder of the README.
const above = "."

// documents are the README and the pages that it leads to.
func documents(t *testing.T) []string {
	t.Helper()
	pages, err := filepath.Glob(filepath.Join(above, "docs", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages in docs (%v)", err)
	}
	return append([]string{filepath.Join(above, "README.md")}, pages...)
}

func readDocument(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// blocks returns what stands in the fenced blocks of a language.
func blocks(text, language string) []string {
	var found []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}

// passage is what stands below one heading. Its console blocks are one session: a later one goes on where an earlier one
// has ended; where a page says <!-- one session --> that is so for all of it. images are those of scripts/images that it takes
// to be here under these names: <!-- images: nginx redis -->
type passage struct {
	title    string
	images   []string
	examples []example
}

var (
	headingLine = regexp.MustCompile(`(?m)^#+ (.*)$`)
	imagesLine  = regexp.MustCompile(`(?m)^<!-- images: (.*) -->$`)
	fencedBlock = regexp.MustCompile("(?ms)^```.*?^```$")
)

// passages are those with examples.
func passages(text string) []passage {
	blank := func(block string) string { return strings.Repeat(" ", len(block)) } // what looks like a heading there is none
	headings := headingLine.FindAllStringSubmatchIndex(fencedBlock.ReplaceAllStringFunc(text, blank), -1)
	if strings.Contains(text, "<!-- one session -->") {
		headings = headings[:1]
	}
	var found []passage
	for i, h := range headings {
		end := len(text)
		if i+1 < len(headings) {
			end = headings[i+1][0]
		}
		below := text[h[1]:end]
		s := passage{title: text[h[2]:h[3]]}
		if m := imagesLine.FindStringSubmatch(below); m != nil {
			s.images = strings.Fields(m[1])
		}
		for _, block := range blocks(below, "console") {
			s.examples = append(s.examples, parseExamples(block)...)
		}
		if len(s.examples) > 0 {
			found = append(found, s)
		}
	}
	return found
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

// TestReadmeExamples types what the README and its pages show, as whoever runs the tests, and looks for what they say is
// printed. A pod's numbers, and what only root or only a user sees, are not compared.
func TestReadmeExamples(t *testing.T) {
	for _, file := range documents(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".md"), func(t *testing.T) {
			for _, s := range passages(readDocument(t, file)) {
				name := s.title
				if len(s.images) > 0 {
					name = "images: " + name // scripts/test leaves these out where there are none
				}
				t.Run(name, s.try)
			}
		})
	}
}

func (s passage) try(t *testing.T) {
	home, err := newHome(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if left := home.clear(); left != "" {
			t.Errorf("left over: %s", left)
		}
	}()
	for _, name := range s.images {
		if out, _, err := home.run("image", "pull", "-q", "oci:"+needImages(t)+":"+name); err != nil {
			t.Fatalf("image %s: %v", name, err)
		} else if _, complaint, err := home.run("image", "tag", strings.TrimSpace(out), name); err != nil {
			t.Fatal(complaint)
		}
	}
	for _, e := range s.examples {
		e.try(t, home)
	}
	if out, _, err := home.run("ps", "-a", "-q"); out != "" || err != nil {
		t.Errorf("the example leaves pods behind: %q (%v)", out, err)
	}
}

// looking are commands that only look. A person types them a moment later than a test, when a server listens or a container
// has said something: so they are typed until they show what they are to show.
var looking = regexp.MustCompile(`^(podsh (join \S+ (--only \S+ )?-- )?)?(curl|logs|ps|top|map) `)

func (e example) try(t *testing.T, home *home) {
	t.Helper()
	const patience = 30 * time.Second
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		problem := e.typed(home)
		if problem == "" {
			return
		}
		if !looking.MatchString(e.command) || time.Since(start) > patience {
			t.Fatal(problem)
		}
	}
}

// typed runs the command, and says what is not as it is told.
func (e example) typed(home *home) (problem string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", e.command)
	cmd.Dir, cmd.Env = home.dir, home.env()
	out, err := cmd.CombinedOutput()
	want := strings.Join(e.output, "\n")
	refused := strings.Contains(want, "podsh: error: ") || strings.Contains(want, ": cannot ")
	if !strings.HasSuffix(e.command, "echo $?") && (err != nil) != refused {
		return fmt.Sprintf("$ %s\n%s%v", e.command, out, err)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "podsh: warning: ") { // of a user without subordinate ids
			got = append(got, strings.TrimRight(line, "\n"))
		}
	}
	if !sameLines(e.output, got) {
		return fmt.Sprintf("$ %s\nprints:\n%s\nwhere this is shown:\n%s", e.command, out, want)
	}
	return ""
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

var (
	podshCommand = regexp.MustCompile("(?:`|\\$ )podsh ([a-z]+)")
	podshLine    = regexp.MustCompile("podsh [^`|;&\n]*|`--[^`]*`")
	flagName     = regexp.MustCompile(`[ \x60]--([a-z][a-z0-9-]*)`)
)

// TestReadmeNamesEveryCommand: the README names them all; and no page names a command or a flag that there is not.
func TestReadmeNamesEveryCommand(t *testing.T) {
	app := wholeApp()
	var flags, names []string
	for _, command := range allCommands(app) {
		flags = append(flags, flagNames(command.Command)...)
	}
	for _, command := range app.Commands {
		names = append(names, command.Names()...)
	}
	for _, file := range documents(t) {
		text := readDocument(t, file)
		named := map[string]bool{}
		for _, m := range podshCommand.FindAllStringSubmatch(text, -1) {
			named[m[1]] = true
			if !slices.Contains(names, m[1]) {
				t.Errorf("%s names podsh %s, which there is not", file, m[1])
			}
		}
		for _, command := range app.Commands {
			if filepath.Base(file) == "README.md" && !named[command.Name] {
				t.Errorf("podsh %s is not in the README", command.Name)
			}
		}
		for _, line := range podshLine.FindAllString(text, -1) {
			ours, _, _ := strings.Cut(line, " -- ")
			for _, m := range flagName.FindAllStringSubmatch(ours, -1) {
				if m[1] != "help" && !slices.Contains(flags, m[1]) {
					t.Errorf("%s names --%s, which is no flag", file, m[1])
				}
			}
		}
	}
}

// TestReadmeIsReadInOneSitting: what is more than that has its page in docs.
func TestReadmeIsReadInOneSitting(t *testing.T) {
	if n := strings.Count(readDocument(t, filepath.Join(above, "README.md")), "\n"); n > 150 {
		t.Errorf("the README has %d lines, more than 150", n)
	}
}

// TestReadmeNamesFilesThatExist: links, to a heading as well, and the scripts that a reader is told to run.
func TestReadmeNamesFilesThatExist(t *testing.T) {
	for _, file := range documents(t) {
		text := readDocument(t, file)
		for _, m := range regexp.MustCompile(`\]\(([^)#:]*)(#[^)]*)?\)`).FindAllStringSubmatch(text, -1) {
			target := file
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(file), filepath.FromSlash(m[1]))
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: a link leads nowhere: %v", file, err)
			} else if m[2] != "" && !slices.Contains(anchors(readDocument(t, target)), m[2]) {
				t.Errorf("%s: %s has no heading %s", file, target, m[2])
			}
		}
		for _, block := range blocks(text, "sh") {
			for _, script := range regexp.MustCompile(`(?m)^scripts/\w+`).FindAllString(block, -1) {
				if info, err := os.Stat(filepath.Join(above, script)); err != nil || info.Mode()&0o111 == 0 {
					t.Errorf("%s: %s can't be run (%v)", file, script, err)
				}
			}
			if out, err := exec.Command("sh", "-n", "-c", block).CombinedOutput(); err != nil {
				t.Errorf("%s: no shell reads this: %s\n%s", file, out, block)
			}
		}
	}
}

// anchors are what links to headings are called, by the rules of those who show Markdown.
func anchors(text string) []string {
	var all []string
	for _, m := range headingLine.FindAllStringSubmatch(text, -1) {
		name := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, "#"+strings.ReplaceAll(name, " ", "-"))
	}
	return all
}
