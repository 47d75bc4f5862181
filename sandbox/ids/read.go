package ids

import (
	"fmt"
	"strconv"
	"strings"
)

// Lines is the text of a uid_map.
func Lines(ids []Map) string {
	var text strings.Builder
	for _, m := range ids {
		fmt.Fprintln(&text, m)
	}
	return text.String()
}

// Words are the arguments of newuidmap(1) behind the pid.
func Words(ids []Map) string {
	var text []string
	for _, m := range ids {
		text = append(text, m.String())
	}
	return strings.Join(text, " ")
}

// ParseFile reads the text of a uid_map or gid_map; path is for errors.
func ParseFile(path, text string) ([]Map, error) {
	ids := []Map{}
	for line := range strings.Lines(text) {
		var n [3]uint32
		fields := strings.Fields(line)
		for i := range n {
			if len(fields) != len(n) {
				return nil, fmt.Errorf("%s: %q is no map", path, line)
			}
			v, err := strconv.ParseUint(fields[i], 10, 32)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			n[i] = uint32(v)
		}
		ids = append(ids, Map{n[0], n[1], n[2]})
	}
	return ids, nil
}
