package ids

import (
	"slices"

	"github.com/podsh/podsh/sandbox/fault"
)

// Range is a row of ids of the host that a user may use in user namespaces: a line of subuid(5) or subgid(5).
type Range struct {
	Start uint32 `json:"start"`
	Count uint32 `json:"count"`
}

// RootMap maps the pod's root to the user outside, and the ids above it to the ranges.
func RootMap(outside uint32, ranges []Range) []Map {
	return appendRanges([]Map{{0, outside, 1}}, 1, ranges)
}

// RangeMap maps the ids from 0 to the ranges alone: for root, whose own id stays outside.
func RangeMap(ranges []Range) []Map {
	return appendRanges(nil, 0, ranges)
}

func appendRanges(ids []Map, inside uint32, ranges []Range) []Map {
	for _, r := range ranges {
		ids = append(ids, Map{inside, r.Start, r.Count})
		inside += r.Count
	}
	return ids
}

// KeepMap maps the user's id to itself, and all others to the ranges.
func KeepMap(own uint32, ranges []Range) []Map {
	var ids []Map
	next := uint32(0)
	for _, r := range ranges {
		if next < own { // the part below our own id
			n := min(r.Count, own-next)
			ids = append(ids, Map{next, r.Start, n})
			next, r.Start, r.Count = next+n, r.Start+n, r.Count-n
		}
		if r.Count > 0 {
			ids = append(ids, Map{max(next, own+1), r.Start, r.Count})
			next = max(next, own+1) + r.Count
		}
	}
	return append(ids, Map{own, own, 1})
}

// SeenIn says what ids of the host are in a user namespace that has these.
func SeenIn(ids, has []Map) ([]Map, error) {
	var inside []Map
	for _, m := range ids {
		for m.Count > 0 {
			i := slices.IndexFunc(has, func(h Map) bool { return m.Outside >= h.Outside && m.Outside-h.Outside < h.Count })
			if i < 0 {
				return nil, fault.New(nil, []string{"leave out --uidmap and --gidmap, or the networks"}, "id %d of the host is not among those that pods on networks can have", m.Outside)
			}
			offset := m.Outside - has[i].Outside
			n := min(m.Count, has[i].Count-offset)
			inside = append(inside, Map{m.Inside, has[i].Inside + offset, n})
			m = Map{m.Inside + n, m.Outside + n, m.Count - n}
		}
	}
	return inside, nil
}

// GroupRange is the widest row of groups from the first that a pod has; the kernel wants it in order outside,
// too, and takes no group above 2^31-1.
func GroupRange(groups []Map) (first, last uint32) {
	first = FirstID(groups)
	last = first
	outside, _ := Translate(groups, first, true)
	for _, m := range groups {
		if end := m.Inside + (m.Count - 1); m.Inside <= last+1 && end > last && m.Outside >= outside {
			last = end
		}
	}
	return first, min(last, 1<<31-1)
}

// RangesOf are the rows of ids of the host in a map, but for the user's own.
func RangesOf(ids []Map) (ranges []Range) {
	for _, m := range ids {
		if m.Count > 1 {
			ranges = append(ranges, Range{m.Outside, m.Count})
		}
	}
	return ranges
}
