package command

import (
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
)

func Completion() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a script that completes podsh's commands in a shell",
		ArgsUsage: "bash|zsh|fish",
		Description: `Prints a script that lets a shell complete commands, flags and the names
of pods.

Examples:
  eval "$(podsh completion bash)"               in ~/.bashrc
  podsh completion zsh >~/.zfunc/_podsh         and fpath+=~/.zfunc in ~/.zshrc
  podsh completion fish >~/.config/fish/completions/podsh.fish`,
		Action: completion,
	}
}

var completionScripts = map[string]func(io.Writer, []word){"bash": bashScript, "zsh": zshScript, "fish": fishScript}

func completion(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("`podsh completion bash`, zsh or fish", "completion takes one shell, not %d", c.NArg())
	}
	script, ok := completionScripts[c.Args().First()]
	if !ok {
		return usagef("bash, zsh and fish are known", "no completion for %q", c.Args().First())
	}
	var out strings.Builder
	script(&out, completionWords(c.App))
	_, err := io.WriteString(os.Stdout, out.String())
	return err
}

// word is a command as completion sees it.
type word struct {
	names []string // "ps" and "ls", or "port ls"
	usage string
	flags []flagWord
	group bool       // what follows is one of the commands that belong to it
	words []string   // of which one follows
	args  []argument // or what podsh can list
}

// flagWord is a flag: what is typed, and what may follow.
type flagWord struct {
	names      []string // without dashes
	usage      string
	takesValue bool
	values     []string // those that are known; none: a file, for all that we know
	also       argument // or one of these
}

// argument is something that podsh itself can list.
type argument struct {
	name string // in ArgsUsage
	list string // the command that prints what there is, a line each; "": none of these
	at   int    // its place among the arguments, from 0; or everywhere
}

const everywhere = -1

var (
	podArgument     = argument{"POD", "podsh ps -a --format '{{if not .Hub}}{{or .Name .ID}}{{end}}' 2>/dev/null", everywhere}
	networkArgument = argument{"NETWORK", "podsh network ls -q 2>/dev/null", everywhere}
	knownArguments  = []argument{podArgument, networkArgument,
		{"CONTAINER", listContainers, everywhere},
		{"POD|CONTAINER", podArgument.list + "; " + listContainers, everywhere},
		{"IMAGE", "podsh image ls -q --names 2>/dev/null", everywhere},
	}
)

const listContainers = "podsh ps -c -a -q 2>/dev/null"

// shell is the name of a shell function that offers them.
func (a argument) shell() string {
	return "_podsh_" + strings.ToLower(strings.ReplaceAll(a.name, "|", "_"))
}

// dashed are the names as they are typed.
func (f flagWord) dashed() []string {
	var names []string
	for _, name := range f.names {
		names = append(names, dashed(name))
	}
	return names
}

// completionWords reads the command table.
func completionWords(app *cli.App) []word {
	var words []word
	for _, command := range allCommands(app) {
		if command.Hidden {
			continue
		}
		w := word{names: command.names, usage: command.Usage, group: command.Subcommands != nil, args: argumentsOf(command.ArgsUsage)}
		for _, below := range command.Subcommands {
			w.words = append(w.words, below.Names()...)
		}
		if w.args == nil && strings.Contains(command.ArgsUsage, "|") {
			w.words = strings.Split(command.ArgsUsage, "|")
		}
		for _, flag := range append(shownFlags(command.Command), cli.HelpFlag) {
			w.flags = append(w.flags, newFlagWord(flag))
		}
		words = append(words, w)
	}
	return words
}

// argumentsOf finds what podsh can list in a text such as "NETWORK POD" or "POD [-- CMD [ARG...]]".
func argumentsOf(usage string) []argument {
	var args []argument
	places := 0
	for _, name := range strings.Fields(usage) {
		name = strings.Trim(name, "[.]")
		if name == "|" || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ|") != "" {
			break // other forms, or what is the pod's
		}
		if i := slices.IndexFunc(knownArguments, func(a argument) bool { return a.name == name }); i >= 0 {
			arg := knownArguments[i]
			arg.at = places
			args = append(args, arg)
		}
		places++
	}
	if places == 1 && args != nil {
		args[0].at = everywhere
	}
	return args
}

// flagValues are those that flags take which take no others.
var flagValues = map[string][]string{
	"restart": {"no", "on-failure", "always"},
	"pull":    {"missing", "always", "never"},
}

func newFlagWord(flag cli.Flag) flagWord {
	f := flagWord{names: flag.Names()}
	if doc, ok := flag.(cli.DocGenerationFlag); ok {
		f.usage, f.takesValue = strings.ReplaceAll(doc.GetUsage(), "`", ""), doc.TakesValue() && !mayStandAlone(flag)
	}
	switch name := f.names[0]; {
	case name == "signal", name == "stop-signal":
		f.values = proc.SignalNames()
	case name == "pod":
		f.also = podArgument
	case strings.Contains(f.usage, "shared or private"): // a namespace of a container
		f.values = []string{"shared", "private"}
		if name == "net" {
			f.values = append(f.values, "new", "none", "host", "outbound")
			f.also = networkArgument
		}
	default:
		f.values = flagValues[name]
	}
	for _, ns := range spec.Namespaces {
		switch {
		case !slices.Contains(f.names, ns.Option) || ns.Name == "time" || strings.Contains(f.usage, "shared"): // of a container
		case ns.Name == "net":
			f.values, f.also = []string{"new", "none", "host", "outbound", "hub", "pod:", "path:"}, networkArgument
		default:
			f.values = []string{"new", "host", "pod:", "path:"}
		}
	}
	return f
}
