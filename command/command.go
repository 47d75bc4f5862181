// Package command is podsh as it is typed: a file for each verb, and files for what verbs share. It turns flags into data
// (sandbox.Spec), and results and errors into text and exit statuses; only it prints. How a pod is made, and in which order,
// it does not know: that is told by package sandbox.
//
// An exported function, such as Create, builds the command of its name.
package command

import (
	"cmp"
	"math"
	"slices"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// Table has commands in sections, each with a title, in the order in which help shows them.
type Table []struct {
	Title    string
	Commands List
}

// List has commands by their names.
type List []struct {
	Name  string
	Build func() *cli.Command
}

// section is commands that are built.
type section struct {
	Title    string
	Commands []*cli.Command
}

// wanted builds only the command that was called: building all of them takes a tenth of a pod's start. It builds all where
// none is called by its name, or one that tells of all.
func (t Table) wanted(args []string) []section {
	var all []section
	for _, s := range t {
		for _, c := range s.Commands {
			if len(args) > 1 && c.Name == args[1] && c.Name != "completion" && c.Name != "man" {
				return []section{{s.Title, []*cli.Command{c.Build()}}}
			}
		}
	}
	for _, s := range t {
		var commands []*cli.Command
		for _, c := range s.Commands {
			commands = append(commands, c.Build())
		}
		all = append(all, section{s.Title, commands})
	}
	return all
}

// Main is podsh, with the commands of a table. It returns the exit status.
func Main(version string, table Table, args []string) int {
	if role := roleOf(args[0]); role != nil {
		return role(args)
	}
	// What podsh leaves running is to keep nothing of the caller's open: somebody may wait for the end of a pipe.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) // Linux 5.11
	args = append([]string{"podsh"}, args[1:]...)
	switch {
	case len(args) > 1 && args[1] == "help":
		args = table.helpAbout(args[2:])
	case len(args) > 1 && slices.Contains([]string{"--version", "-version", "-v"}, args[1]):
		args[1] = "version"
	}
	prepareHeap(args)
	app, out := newApp(version, table.wanted(args)), &output{}
	app.Writer = out
	err := app.Run(flagsFirst(app, args))
	if err = cmp.Or(err, out.err); err != nil { // package cli does not look whether help could be written
		return report(args, err)
	}
	return 0
}
