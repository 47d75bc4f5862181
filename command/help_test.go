package command

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
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
	app := wholeApp()
	page := manPage(app)
	for _, section := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "FILES", "ENVIRONMENT", `"EXIT STATUS"`, "SECURITY", `SEE ALSO`} {
		if !strings.Contains(page, "\n.SH "+section+"\n") && !strings.Contains(page, "\n.SH \""+section+"\"\n") {
			t.Errorf("no section %s", section)
		}
	}
	for _, command := range allCommands(app) {
		if !strings.Contains(page, ".SS \"podsh "+command.names[0]) {
			t.Errorf("no command %s", command.names[0])
		}
		for _, flag := range command.Flags {
			if name := troff(newFlagWord(flag).dashed()[0]); !strings.Contains(page, name) {
				t.Errorf("%s: no flag %s", command.names[0], name)
			}
		}
	}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "'") {
			t.Errorf("a request by mistake: %s", line)
		}
	}
}

// complete asks the bash script what it would offer, with a podsh that knows two pods and two networks.
func complete(t *testing.T, words ...string) string {
	t.Helper()
	dir := t.TempDir()
	const podsh = "#!/bin/sh\nif [ $1 = network ]; then echo front; echo back; elif [ $2 = -c ]; then echo web/app; else echo web; echo; echo wiki; fi\n"
	if err := os.WriteFile(filepath.Join(dir, "podsh"), []byte(podsh), 0o700); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	bashScript(&script, completionWords(wholeApp()))
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
		{"c", "create cp completion"},
		{"rm ", "web wiki web/app"},
		{"logs ", "web/app"},
		{"enter we", "web web/app"},
		{"stop --t", "--time"},
		{"kill -s H", "HUP"},
		{"kill -s HUP w", "web wiki web/app"},
		{"completion ", "bash zsh fish"},
		{"create --net p", "pod: path:"},
		{"create --net h", "host hub"},
		{"create --net f", "front"},
		{"create --ipc h", "host"},
		{"po", "port"},
		{"port ", "ls add rm"},
		{"port --", "--help"},
		{"port add ", "web wiki"},
		{"port add web ", ""}, // a port
		{"port ls web ", "web wiki"},
		{"port ls --", "--json --help"},
		{"network c", "create connect"},
		{"network create ", ""}, // a new name
		{"network create --i", "--ipv4 --ipv6 --internal"},
		{"network rm ", "front back"},
		{"network connect ", "front back"},
		{"network connect front ", "web wiki"},
		{"network connect front web ", ""},
		{"create --dry-run --n", "--name --net"},
		{"create --rootfs ", ""}, // files
		{"join web -- l", ""},    // files
	} {
		if got := complete(t, strings.Split(test.words, " ")...); got != test.want {
			t.Errorf("podsh %s: %q, not %q", test.words, got, test.want)
		}
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	for _, command := range allCommands(wholeApp()) {
		if command.Name != "doctor" && !strings.Contains(command.Description, "Examples:\n  ") {
			t.Errorf("%s has none", command.names[0])
		}
		for line := range strings.Lines(command.Description) {
			if len(line) > 120 {
				t.Errorf("%s: a line of %d characters", command.names[0], len(line))
			}
		}
	}
}

func TestFlagsFirst(t *testing.T) {
	for typed, want := range map[string]string{
		"":                                  "",
		"--help":                            "--help",
		"ps -a":                             "ps -a",
		"join web -u 1000 -- id -u":         "join -u 1000 -- web -- id -u",
		"port ls web --json":                "port ls --json -- web",
		"port lss --json":                   "port --json -- lss",
		"network create front --subnet A/8": "network create --subnet A/8 -- front",
		"network connect front web":         "network connect -- front web",
		"network":                           "network",
		"exec -it web bash -l":              "exec -it -- web -- bash -l",
		"join web ls -- x":                  "join -- web -- ls -- x",
		"run -dp8080:80 -eA=-1 web -d":      "run -d -p 8080:80 -e A=-1 -- web -d",
		"run -p=80:80 -itu root web":        "run -p=80:80 -it -u root -- web",
		"run --rm -w/ --name x web":         "run --rm -w / --name x -- web",
		"run -rm -entrypoint id web -u":     "run -rm -entrypoint id -- web -u",
		"create -name=a web -tmpfs /x":      "create -name=a -tmpfs /x -- web",
		"run -xv. web -- -y":                "run -x -v . -- web -- -y",
		"stop -t0 -- web":                   "stop -t 0 -- web",
		"cp - web:/":                        "cp -- - web:/",
		"stop -= -":                         "stop -= -- -",
	} {
		got := flagsFirst(wholeApp(), append([]string{"podsh"}, strings.Fields(typed)...))
		if text := strings.Join(got[1:], " "); text != want {
			t.Errorf("podsh %s: %s, not %s", typed, text, want)
		}
	}
}

// refusedAs runs podsh, and looks that it says so.
func refusedAs(t *testing.T, env []string, want string, args ...string) {
	t.Helper()
	cmd := exec.Command(podshBinary, args...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	status := exitUsage
	if args[0] == "run" || args[0] == "join" {
		status = exitJoinError
	}
	if exitStatus(err) != status || !strings.Contains(string(out), want) || !strings.Contains(string(out), "podsh: hint: ") {
		t.Errorf("podsh %q: status %d, not %d and %q:\n%s", args, exitStatus(err), status, want, out)
	}
}

// What no command takes is refused before anything is looked for: one argument more than it has, and empty words, which are
// variables that a script has not set.
func TestArgumentsThatAreSurplusOrEmpty(t *testing.T) {
	home, err := newHome(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), home.env()...)
	for _, command := range allCommands(wholeApp()) {
		if command.Subcommands != nil {
			continue
		}
		words := strings.Fields(command.names[0])
		if !strings.Contains(command.ArgsUsage, "...") {
			surplus := slices.Repeat([]string{"x"}, 1+len(strings.Fields(command.ArgsUsage)))
			refusedAs(t, env, " take", slices.Concat(words, surplus)...)
		}
		if command.ArgsUsage != "" && command.Name != "run" {
			refusedAs(t, env, "an argument is empty", append(words, "")...)
		}
		for _, flag := range command.Flags {
			_, one := flag.(*cli.StringFlag)
			_, many := flag.(*cli.StringSliceFlag)
			if name := flag.Names()[0]; (one || many) && !slices.Contains(mayBeEmpty, name) {
				refusedAs(t, env, "--"+name+" is empty", append(words, "--"+name, "")...)
			}
		}
	}
	if left := home.clear(); left != "" {
		t.Error("left over: ", left)
	}
}
