package command

import (
	"strings"

	"github.com/urfave/cli/v2"
)

func newApp(version string, sections []section) *cli.App {
	app := &cli.App{
		Name:                      "podsh",
		Usage:                     "pods on a bare Linux box: no Docker, no daemon, no root",
		UsageText:                 "podsh COMMAND [flags] [arguments]",
		Version:                   version,
		HideVersion:               true,
		HideHelpCommand:           true,
		UseShortOptionHandling:    true,
		DisableSliceFlagSeparator: true, // a comma in a value is a comma
		Metadata:                  map[string]any{"sections": sections},
		CustomAppHelpTemplate:     appHelp,
		ExitErrHandler:            func(*cli.Context, error) {}, // only main exits
		OnUsageError:              usageError,
		Action:                    noCommand,
	}
	for _, s := range sections {
		app.Commands = append(app.Commands, s.Commands...)
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
