package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf16"
)

// table lines up columns.
type table struct {
	*tabwriter.Writer
	lines *bytes.Buffer
	out   io.Writer
}

func newTable(w io.Writer, columns ...any) table {
	lines := &bytes.Buffer{}
	t := table{tabwriter.NewWriter(lines, 0, 0, 2, ' ', 0), lines, w}
	if len(columns) > 0 {
		t.row(columns...)
	}
	return t
}

// Flush writes what was said, without the spaces that tabwriter leaves behind empty cells.
func (t table) Flush() error {
	if err := t.Writer.Flush(); err != nil {
		return err
	}
	var lines []string
	for line := range strings.Lines(t.lines.String()) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return printLines(t.out, lines)
}

// printLines writes each item on a line of its own.
func printLines[T any](w io.Writer, items []T) error {
	var out strings.Builder
	for _, item := range items {
		fmt.Fprintln(&out, item)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// counted is a number of things.
func counted(n int, one, more string) string {
	if n == 1 {
		more = one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// commas writes a list into one cell of a table.
func commas[T any](list []T) string {
	var words []string
	for _, item := range list {
		words = append(words, fmt.Sprint(item))
	}
	return strings.Join(words, ",")
}

// row adds one line.
func (t table) row(cells ...any) {
	for i, cell := range cells {
		if i > 0 {
			fmt.Fprint(t, "\t")
		}
		fmt.Fprint(t, cell)
	}
	fmt.Fprintln(t)
}

// writeJSON writes JSON in which what a terminal could act on is escaped: JSON itself asks for that below the space alone.
func writeJSON(w io.Writer, value any) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return err
	}
	_, err := io.WriteString(w, asciiControls(text.String()))
	return err
}

// asciiControls writes what is no visible character of JSON as it can be written in its strings: \u009b.
func asciiControls(text string) string {
	isPlain := func(r rune) bool { return r == '\n' || strconv.IsPrint(r) }
	if !strings.ContainsFunc(text, func(r rune) bool { return !isPlain(r) }) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if isPlain(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

// age is how people say how long something takes.
func age(d time.Duration) string {
	for _, unit := range []struct {
		name string
		of   time.Duration
		upTo time.Duration
	}{{"s", time.Second, time.Minute}, {"m", time.Minute, time.Hour}, {"h", time.Hour, 24 * time.Hour}} {
		if d < unit.upTo {
			return fmt.Sprintf("%d%s", max(0, d/unit.of), unit.name)
		}
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// size is a number of bytes as ps and free write it.
func size(bytes uint64) string {
	value := float64(bytes)
	for _, unit := range []string{"", "K", "M", "G", "T"} {
		if value < 1024 {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", value), ".0") + unit
		}
		value /= 1024
	}
	return fmt.Sprintf("%.1fP", value)
}

// shorten cuts a text that is too long for a column.
func shorten(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}
