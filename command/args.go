package command

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// flagsFirst moves a command's flags before its arguments, up to -- or to a command of the pod's, since cli takes what
// follows the first argument for arguments: `podsh join web -u 1000 -- id` means what it says. Flags of one letter are
// taken apart as getopt(3) does it: -p8080:80 is -p 8080:80.
func flagsFirst(app *cli.App, args []string) []string {
	command, first := commandOf(app, args)
	if command == nil {
		return args
	}
	var flags, rest []string
	for i := first; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			if command.Name == "run" { // all that follows the image is the command's
				rest = args[i:]
				break
			}
			if command.Name == "join" && len(rest) == 1 { // docker's way to name it, without --
				rest = append(append(rest, "--"), args[i:]...)
				break
			}
			rest = append(rest, arg)
			continue
		}
		words, complete := apart(command, arg)
		flags = append(flags, words...)
		if !complete && i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	if len(rest) > 0 && rest[0] != "--" {
		flags = append(flags, "--") // what follows is no flag any more
	}
	return append(append(args[:first:first], flags...), rest...)
}

// apart takes flags of one letter from the value that stands right behind them; complete says whether the last flag has
// its value, or takes none.
func apart(command *cli.Command, arg string) (words []string, complete bool) {
	name, _, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	if strings.HasPrefix(arg, "--") || len(name) == 1 && given || len(name) > 1 && slices.Contains(flagNames(command), name) {
		return []string{arg}, given || !takesValue(command, name) // package flag takes long names with one dash as well
	}
	for i := 1; i < len(arg); i++ {
		if !takesValue(command, arg[i:i+1]) {
			continue
		}
		if i > 1 {
			words = append(words, arg[:i])
		}
		words = append(words, "-"+arg[i:i+1])
		if i+1 < len(arg) {
			return append(words, arg[i+1:]), true
		}
		return words, false
	}
	return []string{arg}, true
}

// commandOf finds the command that is called, and where its own arguments begin.
func commandOf(app *cli.App, args []string) (command *cli.Command, first int) {
	find := app.Command
	for first = 1; first < len(args); first++ {
		below := find(args[first])
		if below == nil {
			break
		}
		command, find = below, below.Command
	}
	return command, first
}

// isBool says whether a flag may stand without a value, as package flag puts it.
func isBool(flag cli.Flag) bool {
	if generic, ok := flag.(*cli.GenericFlag); ok {
		b, ok := generic.Value.(interface{ IsBoolFlag() bool })
		return ok && b.IsBoolFlag()
	}
	_, ok := flag.(*cli.BoolFlag)
	return ok
}

// takesValue says whether the command has a flag of that name, and it takes a value.
func takesValue(command *cli.Command, name string) bool {
	for _, flag := range command.Flags {
		for _, known := range flag.Names() {
			if known == name {
				return !isBool(flag)
			}
		}
	}
	return false
}
