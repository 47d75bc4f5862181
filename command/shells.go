package command

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// The scripts that complete podsh's commands, one a shell. Each knows the command table by heart, and asks
// podsh for what changes: pods and networks.

// topWords are the commands that follow podsh itself, and the names of those that others belong to.
func topWords(words []word) (top []word, groups []string) {
	for _, word := range words {
		if !strings.Contains(word.names[0], " ") {
			top = append(top, word)
		}
		if word.group {
			groups = append(groups, word.names...)
		}
	}
	return top, groups
}

func bashScript(w io.Writer, words []word) {
	top, groups := topWords(words)
	var names []string
	for _, word := range top {
		names = append(names, word.names...)
	}
	fmt.Fprintf(w, `# bash completion for podsh, made by: podsh completion bash
_podsh() {
	local cur=$2 prev=$3 values= flags= args= command=${COMP_WORDS[1]} first=2 place=0 i
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		COMPREPLY=($(compgen -W '%s' -- "$cur"))
		return
	fi
	case $command in %s)
		((COMP_CWORD == 2)) || { command+=" ${COMP_WORDS[2]}"; first=3; }
	esac
	for ((i = first; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--) compopt -o default; return ;; # a command of the pod's, and its arguments
		-*) ;;
		*) ((++place)) ;;
		esac
	done
	case $command in
`, strings.Join(names, " "), strings.Join(groups, "|"))
	for _, word := range words {
		bashWord(w, word)
	}
	fmt.Fprint(w, `	esac
	[[ $cur == -* ]] && args=$flags
	COMPREPLY=($(compgen -W "${values:-$args}" -- "$cur"))
	[[ ${COMPREPLY-} == *: ]] && compopt -o nospace
}
complete -F _podsh podsh
`)
}

// bashWord writes what may follow one command.
func bashWord(w io.Writer, word word) {
	fmt.Fprintf(w, "\t'%s')\n\t\tcase $prev in\n", strings.Join(word.names, "'|'"))
	var flags []string
	values := map[string][]string{}
	for _, flag := range word.flags {
		flags = append(flags, flag.dashed()...)
		then := "compopt -o default; return"
		if flag.values != nil || flag.also.list != "" {
			then = "values='" + strings.Join(flag.values, " ") + "'"
		}
		if flag.also.list != "" {
			then += "' '$(" + flag.also.list + ")"
		}
		if flag.takesValue {
			values[then] = append(values[then], flag.dashed()...)
		}
	}
	for _, then := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(w, "\t\t%s) %s ;;\n", strings.Join(values[then], "|"), then)
	}
	fmt.Fprintf(w, "\t\tesac\n\t\tflags='%s'\n", strings.Join(flags, " "))
	if word.words != nil {
		fmt.Fprintf(w, "\t\targs='%s'\n", strings.Join(word.words, " "))
	}
	if word.words == nil && word.args == nil {
		fmt.Fprint(w, "\t\tcompopt -o default\n")
	}
	for _, arg := range word.args {
		only := ""
		if arg.at != everywhere {
			only = fmt.Sprintf("((place == %d)) && ", arg.at)
		}
		fmt.Fprintf(w, "\t\t%sargs=$(%s)\n", only, arg.list)
	}
	fmt.Fprint(w, "\t\t;;\n")
}

func zshScript(w io.Writer, words []word) {
	fmt.Fprint(w, "#compdef podsh\n# zsh completion for podsh, made by: podsh completion zsh\n")
	for _, arg := range knownArguments {
		fmt.Fprintf(w, "%s() { compadd -- ${(f)\"$(%s)\"} }\n", arg.shell(), arg.list)
	}
	fmt.Fprint(w, "_podsh() {\n\tlocal -a commands=(\n")
	top, groups := topWords(words)
	for _, word := range top {
		for _, name := range word.names {
			fmt.Fprintf(w, "\t\t%s\n", shellQuote(name+":"+word.usage))
		}
	}
	fmt.Fprintf(w, `	)
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
	if [[ $words[1] == (%s) ]] && ((CURRENT > 2)); then
		words[2]="$words[1] $words[2]"
		shift words
		((CURRENT--))
	fi
	case $words[1] in
`, strings.Join(groups, "|"))
	for _, word := range words {
		zshWord(w, word)
	}
	fmt.Fprint(w, "\tesac\n}\nif [[ $funcstack[1] == _podsh ]]; then _podsh \"$@\"; else compdef _podsh podsh; fi\n")
}

// zshWord writes what may follow one command.
func zshWord(w io.Writer, word word) {
	zshEscape := strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`)
	fmt.Fprintf(w, "\t'%s')\n\t\t_arguments -s", strings.Join(word.names, "'|'"))
	for _, flag := range word.flags {
		value, known := "", strings.ReplaceAll(strings.Join(flag.values, " "), ":", `\:`)
		switch {
		case flag.also.list != "":
			value = ":value:{compadd -- " + known + "; " + flag.also.shell() + "}"
		case known != "":
			value = ":value:(" + known + ")"
		case flag.takesValue:
			value = ":value:_default"
		}
		for _, name := range flag.dashed() {
			fmt.Fprintf(w, " \\\n\t\t\t%s", shellQuote("*"+name+"["+zshEscape.Replace(flag.usage)+"]"+value))
		}
	}
	if word.words != nil {
		fmt.Fprintf(w, " \\\n\t\t\t'1:word:(%s)'", strings.Join(word.words, " "))
	}
	if word.words == nil && word.args == nil {
		fmt.Fprint(w, " \\\n\t\t\t'*:file:_files'")
	}
	for _, arg := range word.args {
		place := "*"
		if arg.at != everywhere {
			place = fmt.Sprint(arg.at + 1)
		}
		fmt.Fprintf(w, " \\\n\t\t\t'%s:%s:%s'", place, strings.ToLower(arg.name), arg.shell())
	}
	fmt.Fprint(w, "\n\t\t;;\n")
}

func fishScript(w io.Writer, words []word) {
	fmt.Fprint(w, `# fish completion for podsh, made by: podsh completion fish
complete -c podsh -f

# Have a command, and this many arguments (or any), been typed?
function __podsh_typed
	set -l words (string match -v -- '-*' (commandline -opc))
	set -l count $argv[1]
	set -e argv[1]
	set -e words[1]
	for word in $argv
		test "$words[1]" = $word; or return 1
		set -e words[1]
	end
	test $count = any; or test $count = (count $words)
end

`)
	for _, word := range words {
		for _, name := range word.names {
			fishWord(w, name, word)
		}
	}
}

// fishWord writes when a command is offered, and what may follow it.
func fishWord(w io.Writer, name string, word word) {
	above, last := "", name
	if i := strings.LastIndexByte(name, ' '); i >= 0 {
		above, last = " "+name[:i], name[i+1:]
	}
	offer := func(count, path, rest string, args ...any) {
		fmt.Fprintf(w, "complete -c podsh -n '__podsh_typed %s%s' %s\n", count, path, fmt.Sprintf(rest, args...))
	}
	offer("0", above, "-a %s -d %s", last, shellQuote(word.usage))
	for _, flag := range word.flags {
		var rest strings.Builder
		for _, name := range flag.names {
			if len(name) > 1 {
				fmt.Fprintf(&rest, "-l %s ", name)
			} else {
				fmt.Fprintf(&rest, "-s %s ", name)
			}
		}
		values := strings.Join(flag.values, " ")
		if flag.also.list != "" {
			values += " (" + flag.also.list + ")"
		}
		switch {
		case values != "":
			fmt.Fprintf(&rest, "-x -a %s ", shellQuote(values))
		case flag.takesValue:
			rest.WriteString("-r -F ")
		}
		offer("any", " "+name, "%s-d %s", &rest, shellQuote(flag.usage))
	}
	if word.words != nil && !word.group { // those are offered one by one
		offer("0", " "+name, "-a %s", shellQuote(strings.Join(word.words, " ")))
	}
	if word.words == nil && word.args == nil && !word.group {
		offer("any", " "+name, "-F")
	}
	for _, arg := range word.args {
		count := "any"
		if arg.at != everywhere {
			count = fmt.Sprint(arg.at)
		}
		offer(count, " "+name, "-a %s", shellQuote("("+arg.list+")"))
	}
}

// shellQuote makes one word of text. Fish reads a backslash between single quotes, the others do not; there
// is none in the command table.
func shellQuote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
