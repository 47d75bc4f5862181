package command

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// read sets a field to what flags say.
func read[T any](c *cli.Context, field *T, flags func(*cli.Context) (T, error)) (err error) {
	*field, err = flags(c)
	return err
}

func labelFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "label", Aliases: []string{"l"}, Usage: "`KEY=VALUE` that inspect shows"}
}

// labels reads --label KEY=VALUE.
func labels(c *cli.Context) (map[string]string, error) {
	var labels map[string]string
	for _, text := range c.StringSlice("label") {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, usagef("--label KEY=VALUE", "malformed label %q", text)
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[key] = value
	}
	return labels, nil
}
