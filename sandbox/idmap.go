package sandbox

import (
	"fmt"
	"os"
	"strings"

	"github.com/moby/sys/user"
)

// Range is a row of ids of the host that a user may use in user namespaces: a line of subuid(5) or subgid(5).
type Range struct {
	Start uint32 `json:"start"`
	Count uint32 `json:"count"`
}

// subids reads the ranges of a user, known by name or by number, from /etc/subuid or /etc/subgid. No file is
// no range.
func subids(path, name string, uid int) ([]Range, error) {
	entries, err := user.ParseSubIDFileFilter(path, func(e user.SubID) bool {
		return e.Name != "" && (e.Name == name || e.Name == fmt.Sprint(uid))
	})
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var ranges []Range
	for _, e := range entries {
		if e.SubID < 0 || e.Count <= 0 || e.SubID+e.Count > 1<<32-1 || e.SubID > 1<<32-1 || e.Count > 1<<32-1 {
			continue // newuidmap would refuse it as well
		}
		ranges = append(ranges, Range{uint32(e.SubID), uint32(e.Count)})
	}
	return ranges, nil
}

// rootMap maps the pod's root to the user outside, and the ids above it to the ranges.
func rootMap(outside uint32, ranges []Range) []IDMap {
	return appendRanges([]IDMap{{0, outside, 1}}, 1, ranges)
}

// rangeMap maps the ids from 0 to the ranges alone: for root, whose own id stays outside.
func rangeMap(ranges []Range) []IDMap {
	return appendRanges(nil, 0, ranges)
}

func appendRanges(ids []IDMap, inside uint32, ranges []Range) []IDMap {
	for _, r := range ranges {
		ids = append(ids, IDMap{inside, r.Start, r.Count})
		inside += r.Count
	}
	return ids
}

// keepMap maps the user's id to itself, and all others to the ranges.
func keepMap(own uint32, ranges []Range) []IDMap {
	var ids []IDMap
	next := uint32(0)
	for _, r := range ranges {
		if next < own { // the part below our own id
			n := min(r.Count, own-next)
			ids = append(ids, IDMap{next, r.Start, n})
			next, r.Start, r.Count = next+n, r.Start+n, r.Count-n
		}
		if r.Count > 0 {
			ids = append(ids, IDMap{max(next, own+1), r.Start, r.Count})
			next = max(next, own+1) + r.Count
		}
	}
	return append(ids, IDMap{own, own, 1})
}

// lines is the text of a uid_map.
func lines(ids []IDMap) string {
	var text strings.Builder
	for _, m := range ids {
		fmt.Fprintln(&text, m)
	}
	return text.String()
}

// words are the arguments of newuidmap(1) behind the pid.
func words(ids []IDMap) string {
	var text []string
	for _, m := range ids {
		text = append(text, m.String())
	}
	return strings.Join(text, " ")
}
