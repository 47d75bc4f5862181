package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestTroff(t *testing.T) {
	for text, want := range map[string]string{
		"--name":         `\-\-name`,
		".profile":       `\&.profile`,
		"'quoted'":       `\(aqquoted\(aq`,
		`C:\new`:         `C:\enew`,
		"~/.zshrc ^":     `\(ti/.zshrc \(ha`,
		"a \"b\" `c` .d": "a \"b\" \\`c\\` .d",
	} {
		if got := troff(text); got != want {
			t.Errorf("%s: %s, not %s", text, got, want)
		}
	}
}

func TestManPageNamesEveryCommandAndFlag(t *testing.T) {
	app := newApp()
	page := manPage(app)
	for _, section := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "FILES", "ENVIRONMENT", `"EXIT STATUS"`, "SECURITY", `SEE ALSO`} {
		if !strings.Contains(page, "\n.SH "+section+"\n") && !strings.Contains(page, "\n.SH \""+section+"\"\n") {
			t.Errorf("no section %s", section)
		}
	}
	for _, command := range app.Commands {
		if !strings.Contains(page, ".SS \"podsh "+command.Name) {
			t.Errorf("no command %s", command.Name)
		}
		for _, flag := range command.Flags {
			if name := troff(newFlagWord(flag).dashed()[0]); !strings.Contains(page, name) {
				t.Errorf("%s: no flag %s", command.Name, name)
			}
		}
	}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "'") {
			t.Errorf("a request by mistake: %s", line)
		}
	}
}

// complete asks the bash script what it would offer, with a podsh that knows two pods.
func complete(t *testing.T, words ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "podsh"), []byte("#!/bin/sh\necho web\necho wiki\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	bashScript(&script, completionWords(newApp()))
	script.WriteString(`
compopt() { :; } # works only while completing
COMP_WORDS=(podsh "$@") COMP_CWORD=$#
_podsh podsh "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
echo "${COMPREPLY[*]}"`)
	cmd := exec.Command("bash", append([]string{"-c", script.String(), "bash"}, words...)...)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("bash: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestBashCompletion(t *testing.T) {
	for _, test := range []struct{ words, want string }{
		{"cr", "create"},
		{"c", "create completion"},
		{"rm ", "web wiki"},
		{"enter we", "web"},
		{"stop --t", "--time"},
		{"kill -s H", "HUP"},
		{"kill -s HUP w", "web wiki"},
		{"completion ", "bash zsh fish"},
		{"create --net p", "pod: path:"},
		{"create --dry-run --n", "--name --net"},
		{"create --rootfs ", ""}, // files
		{"join web -- l", ""},    // files
	} {
		if got := complete(t, strings.Split(test.words, " ")...); got != test.want {
			t.Errorf("podsh %s: %q, not %q", test.words, got, test.want)
		}
	}
}

func TestCompletionScriptsAreTaken(t *testing.T) {
	for shell, script := range completionScripts {
		var out strings.Builder
		script(&out, completionWords(newApp()))
		path, err := exec.LookPath(shell)
		if err != nil {
			continue // the pure tests say enough of the text
		}
		cmd := exec.Command(path, "-n", "/dev/stdin")
		cmd.Stdin = strings.NewReader(out.String())
		if said, err := cmd.CombinedOutput(); err != nil || len(said) > 0 {
			t.Errorf("%s -n: %v\n%s", shell, err, said)
		}
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	for _, command := range newApp().Commands {
		if command.Name != "doctor" && !strings.Contains(command.Description, "Examples:\n  ") {
			t.Errorf("%s has none", command.Name)
		}
		for line := range strings.Lines(command.Description) {
			if len(line) > 120 {
				t.Errorf("%s: a line of %d characters", command.Name, len(line))
			}
		}
	}
}
