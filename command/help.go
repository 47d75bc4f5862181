package command

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// appHelp is package cli's help, but for the sections: its own categories come in the order of the alphabet.
const appHelp = `NAME:
   {{.Name}} - {{.Usage}}

USAGE:
   {{.UsageText}}
{{range .Metadata.sections}}
{{.Title}}:{{range .Commands}}
   {{join .Names ", " | printf "%-17s"}}  {{.Usage}}{{end}}
{{end}}
` + "`podsh help COMMAND` says more of one, `podsh man` of all.\n"

// flagText is a flag in the help of its command: how it is typed, and in a second column, or on the next line, what it does.
func flagText(flag cli.Flag) string {
	value, usage := flagUsage(flag.(cli.DocGenerationFlag)) // as all flags of package cli are
	names := newFlagWord(flag).dashed()
	slices.SortFunc(names, func(a, b string) int { return len(a) - len(b) }) // -n before --name
	text := strings.Join(names, ", ")
	switch {
	case mayStandAlone(flag):
		text += "[=" + value + "]"
	case value != "":
		text += " " + value
	}
	if multi, ok := flag.(cli.DocGenerationSliceFlag); ok && multi.IsSliceFlag() {
		text += " ..."
	}
	const column, margin, further = 32, 3, 6 // cli indents a flag by three, and its second line by six
	if len(text) >= column {
		return text + "\n" + strings.Repeat(" ", margin+column-further) + usage
	}
	return fmt.Sprintf("%-*s%s", column, text, usage)
}

// shownFlags are a command's own flags. cli gives --help to the one that runs alone.
func shownFlags(command *cli.Command) []cli.Flag {
	return slices.DeleteFunc(command.VisibleFlags(), func(flag cli.Flag) bool {
		return slices.Contains(flag.Names(), cli.HelpFlag.Names()[0])
	})
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

// flagUsage finds the word for the flag's value, which stands between backquotes in its usage, and what it does, with what is
// taken where nothing is said.
func flagUsage(flag cli.DocGenerationFlag) (value, usage string) {
	usage = flag.GetUsage()
	if before, rest, ok := strings.Cut(usage, "`"); ok {
		if name, after, ok := strings.Cut(rest, "`"); ok {
			value, usage = name, before+name+after
		}
	}
	if !flag.TakesValue() {
		return "", usage
	}
	if value == "" {
		value = "VALUE"
	}
	if text := flag.GetValue(); text != "" && !strings.Contains(usage, "default") {
		usage += " (default: " + text + ")"
	}
	return value, usage
}

// dashed is a flag as it is typed.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// helpAbout is how help about a command is asked for; what is no command of the words is left out.
func (t Table) helpAbout(words []string) []string {
	args := append([]string{"podsh"}, words...)
	_, first := commandOf(newApp("", t.wanted(nil)), args)
	if first == 1 {
		first = min(2, len(args)) // that it is none will be said
	}
	return append(args[:first:first], "--help")
}
