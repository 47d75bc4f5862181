// Package ids is arithmetic with maps of user and group ids, user_namespaces(7): which id outside a pod stands for one
// inside, and which maps a user's ranges allow. It reads no file and asks nobody: what /etc/subuid says, and what is in
// /proc, comes as text or as ranges.
package ids

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/podsh/podsh/sandbox/fault"
)

// FirstID is 0 where that is mapped, else the first id that is.
func FirstID(ids []Map) uint32 {
	if _, ok := Translate(ids, 0, true); ok || len(ids) == 0 {
		return 0
	}
	return ids[0].Inside
}

// OnlyOwn says whether a map is one that its user may write without help, user_namespaces(7).
func OnlyOwn(ids []Map, own uint32) bool {
	return len(ids) == 1 && ids[0].Count == 1 && ids[0].Outside == own
}

// Map is one line of a uid_map or gid_map, user_namespaces(7).
type Map struct {
	Inside  uint32 `json:"inside"`
	Outside uint32 `json:"outside"` // as the host sees it
	Count   uint32 `json:"count"`
}

// String is the map as /proc/PID/uid_map wants it.
func (m Map) String() string { return fmt.Sprintf("%d %d %d", m.Inside, m.Outside, m.Count) }

// Parse reads IN:OUT:COUNT; example is a map that this user may ask for, for a hint.
func Parse(option, text, example string) (Map, error) {
	var n [3]uint32
	parts := strings.Split(text, ":")
	if len(parts) == len(n) {
		for i, part := range parts {
			v, err := strconv.ParseUint(part, 10, 32)
			if err != nil {
				parts = nil
				break
			}
			n[i] = uint32(v)
		}
	}
	m := Map{n[0], n[1], n[2]}
	if len(parts) != len(n) || m.Count == 0 ||
		uint64(m.Inside)+uint64(m.Count) > 1<<32-1 || uint64(m.Outside)+uint64(m.Count) > 1<<32-1 {
		return Map{}, fault.New(fault.ErrInvalid, []string{"IN:OUT:COUNT, such as " + example}, "--%s %q is no map", option, text)
	}
	return m, nil
}

// Validate refuses what the kernel would: overlaps, and more than 340 lines (Linux 4.15).
func Validate(what string, ids []Map) error {
	if len(ids) > 340 {
		return fault.Invalid("%s: %d maps: the kernel takes 340", what, len(ids))
	}
	for i, a := range ids {
		for _, b := range ids[i+1:] {
			if overlap(a.Inside, b.Inside, a.Count, b.Count) || overlap(a.Outside, b.Outside, a.Count, b.Count) {
				return fault.New(fault.ErrInvalid, []string{"IN:OUT:COUNT: no id may stand in two maps"}, "%s: %q and %q overlap", what, a, b)
			}
		}
	}
	return nil
}

func overlap(a, b, countA, countB uint32) bool {
	return uint64(a) < uint64(b)+uint64(countB) && uint64(b) < uint64(a)+uint64(countA)
}

// Translate finds the id inside for a host id outside, or the other way round with inside true.
func Translate(ids []Map, id uint32, inside bool) (uint32, bool) {
	for _, m := range ids {
		from, to := m.Outside, m.Inside
		if inside {
			from, to = to, from
		}
		if id >= from && id-from < m.Count {
			return to + (id - from), true
		}
	}
	return 0, false
}
