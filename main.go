// Go would read the cgroup's CPU limit from five files at every start: podsh computes nothing.
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command podsh makes pods on a bare Linux box: without Docker, without a daemon, without root.
//
// This package turns flags into data (sandbox.Spec), and results and errors into text and exit statuses.
// How a pod is made is told by package sandbox.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/image"
	images "github.com/podsh/podsh/image/program"
	"github.com/podsh/podsh/network/program"
	"github.com/podsh/podsh/sandbox"
)

// version is set by scripts/build.
var version = "0.1.0-dev"

// Exit statuses. Those of a command in a pod are its own; STYLE of shells: 128+N for signal N.
const (
	exitError         = 1   // podsh's error
	exitUsage         = 2   // podsh was called wrongly
	exitJoinError     = 125 // join: podsh's error, usage or not: 1 and 2 may be the command's own
	exitNotExecutable = 126
	exitNotFound      = 127
)

// commands is the one table of what podsh can do; help, completion and the man page are made from it.
var commands = []struct {
	name string
	make func() *cli.Command
}{
	{"create", createCommand}, {"run", runCommand}, {"join", joinCommand},
	{"ps", psCommand}, {"inspect", inspectCommand}, {"top", topCommand}, {"map", mapCommand},
	{"logs", logsCommand}, {"attach", attachCommand}, {"cp", cpCommand}, {"start", startCommand}, {"restart", restartCommand},
	{"stop", stopCommand}, {"kill", killCommand}, {"wait", waitCommand}, {"rm", rmCommand},
	{"image", imageCommand}, {"port", portCommand}, {"network", networkCommand},
	{"pause", pauseCommand}, {"doctor", doctorCommand},
	{"completion", completionCommand}, {"man", manCommand}, {"version", versionCommand},
}

// wanted makes the command that is called, which is a tenth of a pod's time faster than to make all; and all where none
// is called by its name, or one that tells of all.
func wanted(args []string) []*cli.Command {
	var all []*cli.Command
	for _, c := range commands {
		if len(args) > 1 && c.name == args[1] && c.name != "completion" && c.name != "man" {
			return []*cli.Command{c.make()}
		}
	}
	for _, c := range commands {
		all = append(all, c.make())
	}
	return all
}

func newApp(commands []*cli.Command) *cli.App {
	app := &cli.App{
		Name:                      "podsh",
		Usage:                     "pods on a bare Linux box: no Docker, no daemon, no root",
		UsageText:                 "podsh COMMAND [flags] [arguments]",
		Version:                   version,
		HideVersion:               true,
		HideHelpCommand:           true,
		UseShortOptionHandling:    true,
		DisableSliceFlagSeparator: true, // a comma in a value is a comma
		Commands:                  commands,
		ExitErrHandler:            func(*cli.Context, error) {}, // only main exits
		OnUsageError:              usageError,
		Action:                    noCommand,
	}
	cli.FlagStringer = flagText
	for _, command := range allCommands(app) {
		command.OnUsageError = usageError
		command.HideHelpCommand = true
		command.UsageText = strings.TrimRight("podsh "+command.names[0]+" [flags] "+command.ArgsUsage, " ")
		if len(command.Subcommands) > 0 {
			command.Action, command.ArgsUsage = noCommand, "COMMAND"
		} else {
			command.Before = parsed
		}
		for _, flag := range command.Flags {
			if b, ok := flag.(*cli.BoolFlag); ok {
				b.DisableDefaultText = true // "(default: false)" tells nobody anything
			}
		}
	}
	return app
}

// fullCommand is a command with all that is typed to call it.
type fullCommand struct {
	*cli.Command
	names []string // its name and aliases, such as "ps" and "ls", or "port ls"
}

// allCommands lists each command of the table, and behind it those that belong to it.
func allCommands(app *cli.App) []fullCommand {
	var all []fullCommand
	var add func(commands []*cli.Command, above string)
	add = func(commands []*cli.Command, above string) {
		for _, command := range commands {
			full := fullCommand{Command: command}
			for _, name := range command.Names() {
				full.names = append(full.names, above+name)
			}
			all = append(all, full)
			add(command.Subcommands, full.names[0]+" ")
		}
	}
	add(app.Commands, "")
	return all
}

// lasting are the commands that may run for long, and read much.
var lasting = map[string]bool{"run": true, "image": true, "logs": true, "attach": true, "cp": true, "wait": true}

func main() {
	if networkMain != nil && os.Args[0] == program.Name {
		os.Exit(networkMain(os.Args))
	}
	if imageMain != nil && (os.Args[0] == images.Name || os.Args[0] == image.UnpackName) {
		os.Exit(imageMain(os.Args))
	}
	if os.Args[0] == sandbox.SuperviseName {
		os.Exit(sandbox.Supervise(os.Args))
	}
	if os.Args[0] == sandbox.KeepName {
		os.Exit(sandbox.Keep(os.Args))
	}
	if os.Args[0] == sandbox.CopyName {
		os.Exit(sandbox.CopyMain(os.Args))
	}
	args := append([]string{"podsh"}, os.Args[1:]...)
	switch {
	case len(args) > 1 && args[1] == "help":
		args = helpAbout(args[2:])
	case len(args) > 1 && slices.Contains([]string{"--version", "-version", "-v"}, args[1]):
		args[1] = "version"
	}
	if len(args) < 2 || !lasting[args[1]] {
		debug.SetGCPercent(-1) // podsh lives for milliseconds
	}
	if len(args) > 1 && (args[1] == "create" || args[1] == "run") {
		populateHeap()
	}
	app, out := newApp(wanted(args)), &output{}
	app.Writer = out
	err := app.Run(flagsFirst(app, args))
	if err = cmp.Or(err, out.err); err != nil { // package cli does not look whether help could be written
		os.Exit(report(args, err))
	}
}

// report prints an error, the only place that does, and returns the exit status.
func report(args []string, err error) int {
	var status statusError
	if errors.As(err, &status) {
		return int(status)
	}
	if topic, ok := strings.CutPrefix(err.Error(), "No help topic for "); ok { // package cli's -h takes a command
		err = usagef("--hostname "+strings.Trim(topic, "'")+", if that is meant; -h alone shows the help", "-h takes no value, but got %s", topic)
	}
	say("error", err)
	isJoin := len(args) > 1 && (joinCommand().HasName(args[1]) || args[1] == "run")
	switch {
	case errors.Is(err, sandbox.ErrNotFound):
		return exitNotFound
	case errors.Is(err, sandbox.ErrNotExecutable):
		return exitNotExecutable
	case isJoin:
		return exitJoinError
	case errors.Is(err, sandbox.ErrInvalid):
		return exitUsage
	}
	return exitError
}

// warn tells people of something that is no error.
func warn(what error) { say("warning", what) }

func say(kind string, what error) {
	fmt.Fprintf(os.Stderr, "podsh: %s: %v\n", kind, what)
	for _, hint := range sandbox.Hints(what) {
		fmt.Fprintf(os.Stderr, "podsh: hint: %s\n", hint)
	}
}

// statusError ends podsh with a status and no more words.
type statusError int

func (s statusError) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usage is an error in how podsh was called.
type usage struct {
	message string
	hint    string
}

func (u *usage) Error() string   { return u.message }
func (u *usage) Unwrap() error   { return sandbox.ErrInvalid }
func (u *usage) Hints() []string { return []string{u.hint} }

func usagef(hint, format string, args ...any) error {
	return &usage{fmt.Sprintf(format, args...), hint}
}

// called is the name of the command that runs: "ps", or "port ls".
func called(c *cli.Context) string { return strings.TrimPrefix(c.Command.HelpName, c.App.HelpName+" ") }

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
