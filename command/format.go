package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strings"
	"text/template"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox/fault"
)

// show prints a list.
type show[R any] func(w io.Writer, rows []R) error

// listViews are the ways to show a list.
type listViews[R any] struct {
	table, quiet show[R]
	fields       string // of a template
	sample       R      // on which a template is tried, so that a wrong field is told even where there is nothing to list
}

// chosen is the way that the flags ask for.
func (v listViews[R]) chosen(c *cli.Context) (show[R], error) {
	view, chosen := v.table, 0
	if c.Bool("quiet") {
		view, chosen = v.quiet, chosen+1
	}
	if c.Bool("json") {
		view, chosen = asJSON[R], chosen+1
	}
	if c.IsSet("format") {
		var err error
		if view, err = v.format(c.String("format")); err != nil {
			return nil, err
		}
		chosen++
	}
	if chosen > 1 {
		return nil, usagef("choose one of them", "-q, --json and --format exclude each other")
	}
	return func(w io.Writer, rows []R) error {
		file, ok := w.(*os.File)
		if !ok {
			return view(w, rows)
		}
		out := shown(file) // what an image says of itself, its command and labels, may mean the terminal
		return errors.Join(view(out, rows), out.Close())
	}, nil
}

func asJSON[R any](w io.Writer, rows []R) error { return writeJSON(w, rows) }

// format reads what docker's and podman's users know: json, table, table TEMPLATE, or a TEMPLATE for each row.
func (v listViews[R]) format(text string) (show[R], error) {
	columns, isTable := strings.CutPrefix(text, "table")
	switch {
	case text == "json":
		return asJSON[R], nil
	case text == "", isTable && columns == "":
		return v.table, nil
	case isTable && strings.Contains(text, "{{") && strings.TrimLeft(columns, " \t") != columns:
		return v.asTable(strings.TrimLeft(columns, " \t"))
	case !strings.Contains(text, "{{"):
		return nil, usagef("--format json, or --format '{{.ID}}', or --format 'table {{.ID}} {{.Name}}'", "--format %q would print the same for each", text)
	}
	row, err := v.parse(text)
	return func(w io.Writer, rows []R) error {
		var out bytes.Buffer
		for _, r := range rows {
			if err := row.Execute(&out, r); err != nil {
				return v.templateError(err)
			}
			out.WriteByte('\n')
		}
		_, err := w.Write(out.Bytes())
		return err
	}, err
}

// asTable lines the columns of a template up, below the names of their fields.
func (v listViews[R]) asTable(text string) (show[R], error) {
	row, err := v.parse(text)
	if err != nil {
		return nil, err
	}
	return func(w io.Writer, rows []R) error {
		t := newTable(w)
		fmt.Fprint(t, action.ReplaceAllStringFunc(spaced(text), headOf))
		for _, r := range rows {
			fmt.Fprintln(t)
			if err := row.Execute(t, r); err != nil {
				return v.templateError(err)
			}
		}
		fmt.Fprintln(t)
		return t.Flush()
	}, nil
}

var (
	action   = regexp.MustCompile(`\{\{.*?\}\}`)
	field    = regexp.MustCompile(`\.([A-Za-z]\w*)`)
	steering = regexp.MustCompile(`^\{\{-?\s*(range|if|with|else|end|/\*)`)
)

// headOf is what stands above what an action of a template prints: the last field that it names.
func headOf(action string) string {
	fields := field.FindAllStringSubmatch(action, -1)
	if len(fields) == 0 || steering.MatchString(action) {
		return ""
	}
	return strings.ToUpper(fields[len(fields)-1][1])
}

// parse reads a template, and tries it.
func (v listViews[R]) parse(text string) (*template.Template, error) {
	format, err := template.New("--format").Funcs(functions).Option("missingkey=zero").Parse(spaced(text))
	if err == nil {
		err = format.Execute(io.Discard, v.sample)
	}
	if err != nil {
		return nil, v.templateError(err)
	}
	return format, nil
}

// spaced reads \t and \n as tab and line feed: a shell does not.
func spaced(text string) string { return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text) }

// functions are what docker's templates can call, besides Go's own.
var functions = template.FuncMap{
	"json": func(value any) (string, error) {
		text, err := json.Marshal(value)
		return string(text), err
	},
	"join": func(list reflect.Value, by string) (string, error) {
		if list.Kind() != reflect.Slice {
			return "", fmt.Errorf("no list")
		}
		var words []string
		for i := range list.Len() {
			words = append(words, fmt.Sprint(list.Index(i)))
		}
		return strings.Join(words, by), nil
	},
	"lower": func(value any) string { return strings.ToLower(fmt.Sprint(value)) },
	"upper": func(value any) string { return strings.ToUpper(fmt.Sprint(value)) },
}

// What package template says, and where.
var (
	noField    = regexp.MustCompile(`can't evaluate field (\S+) in type`)
	noFunction = regexp.MustCompile(`function "(.*)" not defined`)
	malformed  = regexp.MustCompile(`^template: --format:\d+: (.*)$`)
	atFault    = regexp.MustCompile(`executing "--format" at <(.*?)>: `)
)

// templateError says what is wrong with a template in words that are not Go's.
func (v listViews[R]) templateError(err error) error {
	hint := "fields: " + v.fields + ", as in --format '{{.ID}} {{.Name}}'"
	text := err.Error()
	if m := noField.FindStringSubmatch(text); m != nil {
		if near := fault.Nearest(m[1], strings.Fields(v.fields)); near != "" {
			hint = fmt.Sprintf("did you mean .%s? %s", near, hint)
		}
		return usagef(hint, "malformed template: no field .%s", m[1])
	}
	if m := noFunction.FindStringSubmatch(text); m != nil {
		return usagef("functions: json, join, lower, upper, and those of Go's templates", "malformed template: no function %q", m[1])
	}
	if m := malformed.FindStringSubmatch(text); m != nil {
		return usagef(hint, "malformed template: %s", m[1])
	}
	if m := atFault.FindStringSubmatch(text); m != nil {
		return usagef(hint, "malformed template: %s does not go with what is there", m[1])
	}
	return usagef(hint, "malformed template: %s", text)
}
