package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox"
)

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:        "version",
		Usage:       "print the version",
		Description: "Prints the version of podsh.\n\nExamples:\n  podsh version",
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("`podsh version` alone", "version takes no arguments, not %q", c.Args().First())
			}
			_, err := fmt.Println("podsh", version)
			return err
		},
	}
}

func completionCommand() *cli.Command {
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
		return usagef("`podsh completion bash`, zsh or fish", "completion for which shell?")
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
	names []string
	usage string
	flags []flagWord
	pods  bool     // its arguments are pods
	many  bool     // more than one
	words []string // or one of these
}

// flagWord is a flag: what is typed, and what may follow.
type flagWord struct {
	names      []string // without dashes
	usage      string
	takesValue bool
	values     []string // those that are known; none: a file, for all that we know
}

// dashed are the names as they are typed.
func (f flagWord) dashed() []string {
	var names []string
	for _, name := range f.names {
		if len(name) > 1 {
			name = "-" + name
		}
		names = append(names, "-"+name)
	}
	return names
}

// completionWords reads the command table.
func completionWords(app *cli.App) []word {
	var words []word
	for _, command := range app.Commands {
		if command.Hidden {
			continue
		}
		w := word{names: command.Names(), usage: command.Usage, pods: strings.Contains(command.ArgsUsage, "POD"),
			many: strings.Contains(command.ArgsUsage, "POD...")}
		if !w.pods && strings.Contains(command.ArgsUsage, "|") {
			w.words = strings.Split(command.ArgsUsage, "|")
		}
		for _, flag := range append(shownFlags(command), cli.HelpFlag) {
			w.flags = append(w.flags, newFlagWord(flag))
		}
		words = append(words, w)
	}
	return words
}

// shownFlags are a command's own flags. cli gives --help to the one that runs alone.
func shownFlags(command *cli.Command) []cli.Flag {
	return slices.DeleteFunc(command.VisibleFlags(), func(flag cli.Flag) bool {
		return slices.Contains(flag.Names(), cli.HelpFlag.Names()[0])
	})
}

func newFlagWord(flag cli.Flag) flagWord {
	f := flagWord{names: flag.Names()}
	if doc, ok := flag.(cli.DocGenerationFlag); ok {
		f.usage, f.takesValue = strings.ReplaceAll(doc.GetUsage(), "`", ""), doc.TakesValue() && !mayStandAlone(flag)
	}
	if slices.Contains(f.names, "signal") {
		f.values = signalNames()
	}
	for _, ns := range sandbox.Namespaces {
		if slices.Contains(f.names, ns.Option) && ns.Name != "time" {
			f.values = []string{"new", "host", "pod:", "path:"}
		}
	}
	return f
}

// mayStandAlone says whether a flag takes its value only behind a =, as --dry-run does.
func mayStandAlone(flag cli.Flag) bool {
	generic, ok := flag.(*cli.GenericFlag)
	if !ok {
		return false
	}
	value, ok := generic.Value.(interface{ IsBoolFlag() bool })
	return ok && value.IsBoolFlag()
}

// listPods prints what a pod can be called, a line each.
const listPods = "podsh ps -a --format '{{or .Name .ID}}' 2>/dev/null"

func bashScript(w io.Writer, words []word) {
	var names []string
	for _, word := range words {
		names = append(names, word.names...)
	}
	fmt.Fprintf(w, `# bash completion for podsh, made by: podsh completion bash
_podsh() {
	local cur=$2 prev=$3 values= flags= args= i
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		COMPREPLY=($(compgen -W '%s' -- "$cur"))
		return
	fi
	for ((i = 2; i < COMP_CWORD; i++)); do
		if [[ ${COMP_WORDS[i]} == -- ]]; then # a command of the pod's, and its arguments
			compopt -o default
			return
		fi
	done
	case ${COMP_WORDS[1]} in
`, strings.Join(names, " "))
	for _, word := range words {
		fmt.Fprintf(w, "\t%s)\n\t\tcase $prev in\n", strings.Join(word.names, "|"))
		var flags []string
		values := map[string][]string{}
		for _, flag := range word.flags {
			flags = append(flags, flag.dashed()...)
			if known := strings.Join(flag.values, " "); flag.takesValue {
				values[known] = append(values[known], flag.dashed()...)
			}
		}
		for _, known := range slices.Sorted(maps.Keys(values)) {
			then := "values='" + known + "'"
			if known == "" {
				then = "compopt -o default; return"
			}
			fmt.Fprintf(w, "\t\t%s) %s ;;\n", strings.Join(values[known], "|"), then)
		}
		fmt.Fprint(w, "\t\tesac\n")
		fmt.Fprintf(w, "\t\tflags='%s'\n", strings.Join(flags, " "))
		switch {
		case word.pods:
			fmt.Fprintf(w, "\t\targs=$(%s)\n", listPods)
		case word.words != nil:
			fmt.Fprintf(w, "\t\targs='%s'\n", strings.Join(word.words, " "))
		}
		fmt.Fprintf(w, "\t\t;;\n")
	}
	fmt.Fprint(w, `	esac
	[[ $cur == -* ]] && args=$flags
	COMPREPLY=($(compgen -W "${values:-$args}" -- "$cur"))
	[[ ${COMPREPLY-} == *: ]] && compopt -o nospace
}
complete -F _podsh podsh
`)
}

func zshScript(w io.Writer, words []word) {
	fmt.Fprintf(w, `#compdef podsh
# zsh completion for podsh, made by: podsh completion zsh
_podsh_pods() { compadd -- ${(f)"$(%s)"} }
_podsh() {
	local -a commands=(
`, listPods)
	for _, word := range words {
		for _, name := range word.names {
			fmt.Fprintf(w, "\t\t%s\n", shellQuote(name+":"+word.usage))
		}
	}
	fmt.Fprint(w, `	)
	if ((CURRENT == 2)); then
		_describe command commands
		return
	fi
	if ((${words[(i)--]} < CURRENT)); then # a command of the pod's, and its arguments
		_default
		return
	fi
	shift words
	((CURRENT--))
	case $words[1] in
`)
	zshEscape := strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`)
	for _, word := range words {
		fmt.Fprintf(w, "\t%s)\n\t\t_arguments -s", strings.Join(word.names, "|"))
		for _, flag := range word.flags {
			value := ""
			if flag.takesValue {
				value = ":value:_default"
				if flag.values != nil {
					value = ":value:(" + strings.ReplaceAll(strings.Join(flag.values, " "), ":", `\:`) + ")"
				}
			}
			for _, name := range flag.dashed() {
				fmt.Fprintf(w, " \\\n\t\t\t%s", shellQuote("*"+name+"["+zshEscape.Replace(flag.usage)+"]"+value))
			}
		}
		switch {
		case word.pods && word.many:
			fmt.Fprint(w, " \\\n\t\t\t'*:pod:_podsh_pods'")
		case word.pods:
			fmt.Fprint(w, " \\\n\t\t\t'1:pod:_podsh_pods'")
		case word.words != nil:
			fmt.Fprintf(w, " \\\n\t\t\t'1:word:(%s)'", strings.Join(word.words, " "))
		}
		fmt.Fprint(w, "\n\t\t;;\n")
	}
	fmt.Fprint(w, "\tesac\n}\nif [[ $funcstack[1] == _podsh ]]; then _podsh \"$@\"; else compdef _podsh podsh; fi\n")
}

func fishScript(w io.Writer, words []word) {
	fmt.Fprint(w, "# fish completion for podsh, made by: podsh completion fish\ncomplete -c podsh -f\n")
	for _, word := range words {
		for _, name := range word.names {
			fmt.Fprintf(w, "complete -c podsh -n __fish_use_subcommand -a %s -d %s\n", name, shellQuote(word.usage))
		}
		seen := shellQuote("__fish_seen_subcommand_from " + strings.Join(word.names, " "))
		for _, flag := range word.flags {
			fmt.Fprintf(w, "complete -c podsh -n %s", seen)
			for _, name := range flag.names {
				if len(name) > 1 {
					fmt.Fprintf(w, " -l %s", name)
				} else {
					fmt.Fprintf(w, " -s %s", name)
				}
			}
			switch {
			case flag.values != nil:
				fmt.Fprintf(w, " -x -a %s", shellQuote(strings.Join(flag.values, " ")))
			case flag.takesValue:
				fmt.Fprint(w, " -r -F")
			}
			fmt.Fprintf(w, " -d %s\n", shellQuote(flag.usage))
		}
		switch {
		case word.pods:
			fmt.Fprintf(w, "complete -c podsh -n %s -a %s\n", seen, shellQuote("("+listPods+")"))
		case word.words != nil:
			fmt.Fprintf(w, "complete -c podsh -n %s -a %s\n", seen, shellQuote(strings.Join(word.words, " ")))
		}
	}
}

// shellQuote makes one word of text. Fish reads a backslash between single quotes, the others do not; there
// is none in the command table.
func shellQuote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
