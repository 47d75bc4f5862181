package command

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
	"github.com/podsh/podsh/sandbox/view"
)

func Map() *cli.Command {
	return &cli.Command{
		Name:      "map",
		Usage:     "show who shares which namespace with whom",
		ArgsUsage: "[POD...]",
		Description: `Prints a table, with a line for the host and one for each pod that runs, and each
of its containers: the number that stands for each of its namespaces (as lsns and /proc/PID/ns show
it), or =NAME where it is that of a line above. Below, a tree of the user
namespaces: what each owns, and who lives there. Whoever is root in a user
namespace is so over all that it owns. At the end addresses, networks and ports
of pods that have any. With PODs, only these, and those that share something
with them.

Examples:
  podsh map
  podsh map web --json | jq '.[] | {name, net: .namespaces.net.inode}'`,
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Action: drawMap,
	}
}

func drawMap(c *cli.Context) error {
	store, err := store.OpenStore()
	if err != nil {
		return err
	}
	pods, err := store.List()
	if err != nil {
		return err
	}
	around, err := namedPods(store, c.Args().Slice())
	if err != nil {
		return err
	}
	m, err := view.Draw(pods)
	if err != nil {
		return err
	}
	if len(around) > 0 {
		var ids []string
		for _, pod := range around {
			ids = append(ids, pod.ID)
		}
		m.Around(ids)
	}
	if c.Bool("json") {
		return writeJSON(os.Stdout, m.Residents)
	}
	if err := mapTable(os.Stdout, m); err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout)
	if err := mapTree(os.Stdout, m); err != nil {
		return err
	}
	return mapNets(os.Stdout, m)
}

// mapTable shows each namespace by its inode once, where it first appears.
func mapTable(w io.Writer, m *view.Map) error {
	header := []any{"NAME"}
	for _, ns := range spec.Namespaces {
		header = append(header, strings.ToUpper(ns.Name))
	}
	t := newTable(w, header...)
	first := map[uint64]string{}
	for _, r := range m.Residents {
		cells := []any{r.Name}
		for _, ns := range spec.Namespaces {
			inode := r.Namespaces[ns.Name].Inode
			switch name, shared := first[inode]; {
			case inode == 0:
				cells = append(cells, "-") // the kernel has none of that kind
			case shared:
				cells = append(cells, "="+name)
			default:
				first[inode] = r.Name
				cells = append(cells, inode)
			}
		}
		t.row(cells...)
	}
	return t.Flush()
}

// mapNets shows where pods can be reached, behind an empty line; nothing, where none can.
func mapNets(w io.Writer, m *view.Map) error {
	reached := slices.DeleteFunc(slices.Clone(m.Residents), func(r *view.Resident) bool {
		return len(r.Addresses)+len(r.Networks)+len(r.Ports) == 0
	})
	if len(reached) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable(w, "NAME", "ADDRESSES", "NETWORKS", "PORTS")
	for _, r := range reached {
		t.row(r.Name, commas(r.Addresses), commas(r.Networks), arrows(r.Ports))
	}
	return t.Flush()
}

func mapTree(w io.Writer, m *view.Map) error {
	var lines []string
	for _, root := range m.Tree() {
		lines = append(lines, branchTitle(root))
		lines = append(lines, branchLines(root)...)
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}

func branchTitle(b *view.Branch) string {
	if b.Inode == 0 {
		return "owned by user namespaces above the host's"
	}
	return fmt.Sprintf("user namespace %d of %s, made by uid %d", b.Inode, someOf(b.Residents), b.Maker)
}

// branchLines draws what a branch owns and what is below it.
func branchLines(b *view.Branch) []string {
	width := 0
	for _, g := range b.Groups {
		width = max(width, len(someOf(g.Residents)))
	}
	var entries [][]string
	for _, g := range b.Groups {
		entries = append(entries, []string{fmt.Sprintf("%-*s  %s", width, someOf(g.Residents), strings.Join(g.Namespaces, " "))})
	}
	for _, below := range b.Below {
		entries = append(entries, append([]string{branchTitle(below)}, branchLines(below)...))
	}
	var lines []string
	for i, entry := range entries {
		first, others := "├─ ", "│  "
		if i == len(entries)-1 {
			first, others = "└─ ", "   "
		}
		for j, line := range entry {
			if j > 0 {
				first = others
			}
			lines = append(lines, first+line)
		}
	}
	return lines
}

// someOf names who it is; of many, the first and how many more.
func someOf(names []string) string {
	const most = 6
	if len(names) <= most {
		return strings.Join(names, " ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(slices.Clone(names[:most]), " "), len(names)-most)
}
