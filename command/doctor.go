package command

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/doctor"
)

func Doctor() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "can this machine make pods? say what is lost, and which command mends it",
		Description: "Looks by doing: it makes namespaces and mounts in them, and leaves nothing behind. Each line is ok,\n" +
			"or warn with what pods go without, or fail where no pod can be made; below it, the one command that mends it.\n" +
			"The status is 1 if no pod can be made.",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print it as JSON"}},
		Action: d,
	}
}

func d(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("podsh doctor [--json]", "doctor takes no argument, but got %q", c.Args().First())
	}
	findings := doctor.Doctor()
	show := printFindings
	if c.Bool("json") {
		show = printFindingsJSON
	}
	if err := show(os.Stdout, findings); err != nil {
		return err
	}
	for _, f := range findings {
		if f.Required && !f.OK {
			return statusError(exitError)
		}
	}
	return nil
}

func printFindingsJSON(w io.Writer, findings []doctor.Finding) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false) // fixes are commands, with < > and & in them
	return e.Encode(findings)
}

// printFindings is a table: mark, check and finding, and what is lost and the fix below.
func printFindings(w io.Writer, findings []doctor.Finding) error {
	width := 0
	for _, f := range findings {
		width = max(width, len(f.Check))
	}
	var text strings.Builder
	line := func(mark, check, what string) { fmt.Fprintf(&text, "%s  %-*s  %s\n", mark, width, check, what) }
	failed, lost := "", 0
	for _, f := range findings {
		switch {
		case f.OK:
			line(paint("ok  ", green), f.Check, f.Finding)
			continue
		case f.Required:
			line(paint("fail", red), f.Check, f.Finding)
			failed = f.Check
		default:
			line(paint("warn", yellow), f.Check, f.Finding)
			lost++
		}
		if f.Lost != "" {
			line("    ", "", "lost: "+f.Lost)
		}
		if f.Fix != "" {
			line("    ", "", "fix:  "+f.Fix)
		}
	}
	fmt.Fprintf(&text, "\n%s\n", summary(failed, lost))
	_, err := io.WriteString(w, text.String())
	return err
}

func summary(failed string, lost int) string {
	switch {
	case failed != "":
		return "pods can't be made here"
	case lost == 0:
		return "pods can be made here, and nothing is lost"
	case lost == 1:
		return "pods can be made here; one thing is lost"
	}
	return fmt.Sprintf("pods can be made here; %d things are lost", lost)
}

// Colours of a terminal, ECMA-48.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
)

// paint colours a mark where a person reads it, no-color.org.
func paint(mark, colour string) string {
	if _, err := unix.IoctlGetTermios(int(os.Stdout.Fd()), unix.TCGETS); err != nil || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return mark
	}
	return "\x1b[" + colour + "m" + mark + "\x1b[0m"
}
