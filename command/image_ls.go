package command

import (
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/image"
)

// imageRow is an image as `podsh image ls` shows it: the JSON and the fields of templates.
type imageRow struct {
	Name    string    `json:"name"` // "" where it has none
	ID      string    `json:"id"`
	Digest  string    `json:"digest"`
	Created time.Time `json:"created"`
	Size    byteCount `json:"size_bytes"`
	Layers  int       `json:"layers"`
	Used    []string  `json:"used_by"` // containers
}

// byteCount is a size that is short where people read it.
type byteCount int64

func (n byteCount) String() string { return size(uint64(n)) }

const imageFields = "Name Repository Tag ID Digest Age Created CreatedSince Size Layers Used"

// Repository is the name as people write it, without its tag or digest: docker's word.
func (r imageRow) Repository() string {
	repository, _ := r.split()
	return repository
}

// Tag is that of the name.
func (r imageRow) Tag() string {
	_, tag := r.split()
	return tag
}

func (r imageRow) split() (repository, tag string) {
	ref, err := image.ParseReference(r.Name)
	if err != nil {
		return "<none>", "<none>"
	}
	tag = ref.Tag
	if tag == "" {
		tag = "<none>"
	}
	ref.Tag, ref.Digest = "", ""
	return strings.TrimSuffix(image.Familiar(ref.String()), ":latest"), tag
}

// Age is how long ago the image was made, where that is told.
func (r imageRow) Age() string {
	if r.Created.Year() > 1980 {
		return age(time.Since(r.Created))
	}
	return ""
}

// CreatedSince is docker's word for it.
func (r imageRow) CreatedSince() string { return r.Age() }

func imageLsCommand() *cli.Command {
	return &cli.Command{
		Name:    "ls",
		Aliases: []string{"list"},
		Usage:   "list the images that are here",
		Description: `Lists each name of each image; SIZE is what is transferred, and the layers that
images share are counted for each.

FORMAT is json, a Go template for each, or table and a template. Its fields are
` + imageFields + `

Examples:
  podsh image ls
  podsh image ls --format '{{.Repository}}:{{.Tag}}'
  podsh image ls --json | jq -r '.[].digest'`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print ids only"},
			&cli.BoolFlag{Name: "names", Usage: "with -q: names in place of ids"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.StringFlag{Name: "format", Usage: "print it in a `FORMAT`: json, a Go template, or table and a template"},
		},
		Action: imageLs,
	}
}

func imageLs(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("podsh image ls | grep NAME", "image ls takes no arguments, not %q", c.Args().First())
	}
	views := listViews[imageRow]{table: imageTable, quiet: imageIDs, fields: imageFields, sample: imageRow{Used: make([]string, 1)}}
	if c.Bool("names") {
		views.quiet = imageNames
	}
	show, err := views.chosen(c)
	if err != nil {
		return err
	}
	rows, err := imageRows()
	if err != nil {
		return err
	}
	return show(os.Stdout, rows)
}

// imageRows are all names of all images.
func imageRows() ([]imageRow, error) {
	store, use, err := imagesInUse()
	if err != nil {
		return nil, err
	}
	images, err := store.List()
	if err != nil {
		return nil, err
	}
	rows := []imageRow{}
	for _, img := range images {
		names, used := img.Names, use.Images[img.Digest]
		if len(names) == 0 {
			names = []string{""}
		}
		if used == nil {
			used = []string{}
		}
		for _, name := range names {
			rows = append(rows, imageRow{name, img.ID, img.Digest, img.Created, byteCount(img.Size), len(img.Layers), used})
		}
	}
	return rows, nil
}

func imageIDs(w io.Writer, rows []imageRow) error {
	var ids []string
	for _, row := range rows {
		ids = append(ids, shortDigest(row.ID))
	}
	return printLines(w, slices.Compact(ids))
}

func imageNames(w io.Writer, rows []imageRow) error {
	var names []string
	for _, row := range rows {
		if row.Name != "" {
			names = append(names, image.Familiar(row.Name))
		}
	}
	return printLines(w, slices.Compact(names))
}

func imageTable(w io.Writer, rows []imageRow) error {
	t := newTable(w, "NAME", "ID", "AGE", "SIZE", "LAYERS", "USED BY")
	for _, row := range rows {
		name := "<none>"
		if row.Name != "" {
			name = image.Familiar(row.Name)
		}
		t.row(name, shortDigest(row.ID), row.Age(), row.Size, row.Layers, strings.Join(row.Used, ","))
	}
	return t.Flush()
}
