package command

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox/fault"
)

// usage is an error in how podsh was called.
type usage struct {
	message string
	hint    string
}

func (u *usage) Error() string   { return u.message }
func (u *usage) Unwrap() error   { return fault.ErrInvalid }
func (u *usage) Hints() []string { return []string{u.hint} }

func usagef(hint, format string, args ...any) error {
	return &usage{fmt.Sprintf(format, args...), hint}
}

// called is the name of the command that runs: "ps", or "port ls".
func called(c *cli.Context) string { return strings.TrimPrefix(c.Command.HelpName, c.App.HelpName+" ") }

// parsed comes when the flags have been parsed. None has an action; looking for those, each flag against each, by regular
// expressions, takes package cli longer than to parse them: so it finds no flags.
func parsed(c *cli.Context) error {
	err := refuseEmpty(c)
	c.Command.Flags = nil
	return err
}

// mayBeEmpty are the flags whose value may be.
var mayBeEmpty = []string{"entrypoint", "cmd", "format"}

// refuseEmpty refuses empty words: each is a variable that a script has not set, most often, and would be taken for a flag that
// is not given, or for a name that nothing has. In the command of a pod they have their meaning.
func refuseEmpty(c *cli.Context) error {
	given := c.LocalFlagNames()
	for _, flag := range c.Command.Flags {
		name := flag.Names()[0]
		if !slices.Contains(given, name) || slices.Contains(mayBeEmpty, name) {
			continue
		}
		empty := false
		switch flag := flag.(type) {
		case *cli.StringFlag:
			empty = c.String(name) == ""
		case *cli.StringSliceFlag:
			empty = slices.Contains(c.StringSlice(name), "")
		case *cli.GenericFlag:
			value, ok := flag.Value.(*netNames)
			empty = ok && *value == ""
		}
		if empty {
			return usagef(usageOf(c.Command, name, ""), "%s is empty", dashed(name))
		}
	}
	args := c.Args().Slice()
	switch c.Command.Name {
	case "run":
		return nil // its first word is the command, where there is no image
	case "join":
		args = args[:min(1, len(args))]
	}
	if slices.Contains(args, "") {
		return usagef(strings.TrimSpace(c.Command.HelpName+" "+c.Command.ArgsUsage), "%s: an argument is empty", called(c))
	}
	return nil
}

// usageError says in podsh's words what package flag finds wrong with a flag, and which one was probably meant.
func usageError(c *cli.Context, err error, _ bool) error {
	message, help := err.Error(), fmt.Sprintf("`%s --help` lists the flags", c.Command.HelpName)
	if name, ok := strings.CutPrefix(message, "flag provided but not defined: -"); ok {
		name = strings.TrimLeft(name, "-")
		hint := insteadOfFlag(called(c), name, flagNames(c.Command), help)
		if letter := unknownLetter(name, flagNames(c.Command)); letter != "" && hint == help && asTyped(name) == "-"+name {
			hint = insteadOfFlag(called(c), letter, flagNames(c.Command), help)
		}
		return usagef(hint, "no flag %s", asTyped(name))
	}
	if name, ok := strings.CutPrefix(message, "flag needs an argument: -"); ok {
		return usagef(usageOf(c.Command, name, help), "%s needs a value", dashed(strings.TrimLeft(name, "-")))
	}
	if word, ok := strings.CutPrefix(message, "bad flag syntax: "); ok {
		return usagef(help, "%q is no flag", word)
	}
	// invalid value "x" for flag -name: why; invalid boolean value "x" for -name: why
	given, rest, ok := strings.Cut(message, " for flag -")
	if !ok {
		given, rest, ok = strings.Cut(message, " for -")
	}
	name, why, both := strings.Cut(rest, ": ")
	if !ok || !both {
		return usagef(help, "%s", message)
	}
	value, boolean := strings.CutPrefix(given, "invalid boolean value ")
	value = strings.TrimPrefix(value, "invalid value ")
	switch {
	case boolean && why == "parse error":
		why = "takes no value but true or false, not " + value
	case why == "parse error":
		why = value + " is no number"
	case why == "value out of range":
		why = value + " is too large a number"
	default:
		return usagef(usageOf(c.Command, name, help), "%s: %s", dashed(name), why)
	}
	return usagef(usageOf(c.Command, name, help), "%s %s", dashed(name), why)
}

// usageOf is what help says of a flag, in a line.
func usageOf(command *cli.Command, name, otherwise string) string {
	for _, flag := range command.Flags {
		if doc, ok := flag.(cli.DocGenerationFlag); ok && slices.Contains(flag.Names(), name) {
			value, usage := flagUsage(doc)
			switch {
			case value != "" && mayStandAlone(flag):
				value = "[=" + value + "]"
			case value != "":
				value = " " + value
			}
			return dashed(name) + value + ": " + usage
		}
	}
	return otherwise
}

// asTyped is a flag with one dash or two, as it was typed.
func asTyped(name string) string {
	if len(name) == 1 || slices.ContainsFunc(os.Args, func(arg string) bool { return strings.HasPrefix(arg, "-"+name) }) {
		return "-" + name
	}
	return "--" + name
}

// unknownLetter is the one flag of several, as in -fv, that a command has not.
func unknownLetter(name string, known []string) string {
	unknown := slices.DeleteFunc(strings.Split(name, ""), func(letter string) bool { return slices.Contains(known, letter) })
	if len(unknown) != 1 {
		return ""
	}
	return unknown[0]
}

func flagNames(command *cli.Command) []string {
	var names []string
	if command != nil {
		for _, flag := range command.Flags {
			names = append(names, flag.Names()...)
		}
	}
	return names
}

// noCommand is what runs when the first word is no command, of podsh or of a command that has others.
func noCommand(c *cli.Context) error {
	where := c.Command.HelpName
	switch {
	case c.Args().Present():
	case where == c.App.HelpName:
		return cli.ShowAppHelp(c)
	default:
		return cli.ShowSubcommandHelp(c)
	}
	word := c.Args().First()
	return usagef(insteadOfCommand(word, c.Command.Subcommands, where), "no command %q", strings.TrimPrefix(where+" "+word, c.App.HelpName+" "))
}
