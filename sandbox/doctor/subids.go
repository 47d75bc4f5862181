package doctor

import (
	"fmt"
	"os"

	"github.com/moby/sys/user"

	"github.com/podsh/podsh/sandbox/ids"
)

// Subids reads the ranges of a user, known by name or by number, from /etc/subuid or /etc/subgid. No file is
// no range.
func Subids(path, name string, uid int) ([]ids.Range, error) {
	entries, err := user.ParseSubIDFileFilter(path, func(e user.SubID) bool {
		return e.Name != "" && (e.Name == name || e.Name == fmt.Sprint(uid))
	})
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var ranges []ids.Range
	for _, e := range entries {
		if e.SubID < 0 || e.Count <= 0 || e.SubID+e.Count > 1<<32-1 || e.SubID > 1<<32-1 || e.Count > 1<<32-1 {
			continue // newuidmap would refuse it as well
		}
		ranges = append(ranges, ids.Range{Start: uint32(e.SubID), Count: uint32(e.Count)})
	}
	return ranges, nil
}
