package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// table lines up columns. tabwriter writes cell by cell, so there is a buffer behind it.
type table struct {
	*tabwriter.Writer
	out *bufio.Writer
}

func newTable(w io.Writer, columns ...any) table {
	out := bufio.NewWriter(w)
	t := table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0), out}
	t.row(columns...)
	return t
}

// Flush writes what was said; it tells of all errors.
func (t table) Flush() error {
	return errors.Join(t.Writer.Flush(), t.out.Flush())
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

func writeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
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
