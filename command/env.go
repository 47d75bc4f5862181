package command

import (
	"bytes"
	"os"
	"strings"
	"unicode"

	"github.com/urfave/cli/v2"
)

// envFlags are of the variables of a command.
func envFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "set `KEY=VALUE`; KEY alone takes your own value"},
		&cli.StringSliceFlag{Name: "env-file", Usage: "set what the lines of `FILE` say"},
	}
}

// envSpec reads variables, first those of files.
func envSpec(c *cli.Context) (env []string, err error) {
	for _, name := range c.StringSlice("env-file") {
		lines, err := envFile(name)
		if err != nil {
			return nil, err
		}
		env = append(env, lines...)
	}
	for _, text := range c.StringSlice("env") {
		if variable, ok := withOwnValue(text); ok {
			env = append(env, variable)
		}
	}
	return env, nil
}

// withOwnValue gives a variable that is only named the value that podsh itself has; without one it is left out, docker's rule.
func withOwnValue(text string) (variable string, ok bool) {
	if strings.Contains(text, "=") {
		return text, true
	}
	value, ok := os.LookupEnv(text)
	return text + "=" + value, ok
}

// Marks of byte order that editors of other systems put before a text, unicode.org "Byte Order Mark FAQ".
var (
	utf8Mark   = []byte("\xef\xbb\xbf")
	utf16Marks = [][]byte{[]byte("\xff\xfe"), []byte("\xfe\xff")}
)

// envFile reads lines of KEY=VALUE, as docker and podman do: all behind the first = is the value; empty lines, and those with #
// in front, are none.
func envFile(name string) ([]string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, usagef("--env-file FILE, with a line KEY=VALUE for each variable", "--env-file: %v", err)
	}
	for _, mark := range utf16Marks {
		if bytes.HasPrefix(text, mark) {
			return nil, usagef("iconv -f UTF-16 -t UTF-8", "--env-file %s is UTF-16, not UTF-8", name)
		}
	}
	var env []string
	n := 0
	for line := range strings.Lines(string(bytes.TrimPrefix(text, utf8Mark))) {
		n++
		line = strings.TrimLeftFunc(strings.TrimRight(line, "\r\n"), unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		if exported, ok := strings.CutPrefix(line, "export"); ok && strings.TrimLeft(exported, " \t") != exported { // for shells
			line = strings.TrimLeft(exported, " \t")
		}
		key, _, _ := strings.Cut(line, "=")
		switch {
		case strings.ContainsRune(line, 0):
			return nil, usagef("is it a text?", "--env-file %s: line %d has a null byte in it", name, n)
		case key == "":
			return nil, usagef("KEY=VALUE, or KEY for your own value", "--env-file %s: line %d is no variable", name, n)
		case strings.ContainsFunc(key, unicode.IsSpace):
			return nil, usagef("KEY=VALUE: all behind the = is the value, blanks too", "--env-file %s: line %d: no variable is called %q", name, n, key)
		}
		if variable, ok := withOwnValue(line); ok {
			env = append(env, variable)
		}
	}
	return env, nil
}
