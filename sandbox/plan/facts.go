package plan

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/moby/sys/mountinfo"

	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/ids"
)

// Facts are what this machine and this root file system are like, read before planning; the plan is a pure
// function of them and of the spec.
type Facts struct {
	UID, GID    uint32
	Root        bool // may do without a user namespace
	SubUIDs     []ids.Range
	SubGIDs     []ids.Range
	NoRanges    string    // why there are none
	RangesHint  []string  // and what to do about it
	YourMap     string    // a map that may be asked for all the same
	OwnGIDs     []ids.Map // groups that exist where podsh runs: all, but in a user namespace
	NoSetgroups bool      // setgroups(2) is denied here, and so in every user namespace below: user_namespaces(7)
	NewUIDMap   bool      // newuidmap and newgidmap must write ranges: we may not
	Kernel      Version
	LastCap     capability.Cap
	Keys        bool // the kernel has keyrings
	CgroupV2    bool
	Exe         ExeFile
	Store       string          // path of the store
	Data        string          // folder on disk for what must not be in memory
	Namespaces  map[string]bool // kinds that the kernel has
	Masked      []string        // of rootfs.Masked, those that are there
	MaskedFiles map[string]bool // that are files
	ReadOnly    []string        // of rootfs.ReadOnly, those that are there
	ProcEntries []string        // what /proc has beside processes, where the pod's root is the host's
	Resolver    string          // the host's /etc/resolv.conf
	Hosts       string          // more lines for /etc/hosts
	Passwd      string          // the root's /etc/passwd
	Group       string          // the root's /etc/group
	Host        []rootfs.Entry  // of a host root
	Dir         DirFacts        // of a rootfs that is a folder
	Volumes     []bool          // is each a folder?
	Enter       []Entrance      // namespaces of others
	Net         NetFacts
	Mounts      []*mountinfo.Info
}

// DirFacts are of a folder that becomes the root. Nothing in it is trusted: paths are looked up as if it were
// the root, and symbolic links can't lead out.
type DirFacts struct {
	Missing map[string]bool // folders that podsh mounts on, and that are not there
	Files   map[string]bool // /etc/hosts and its like, where they are regular files
	Root    *RootFacts      // what an image says of "/"; nil: nothing
}

// RootFacts are whom a root belongs to, as the pod counts, and its mode.
type RootFacts struct{ Mode, UID, GID uint32 }

// Version of a kernel.
type Version struct{ Major, Minor int }

// Before says whether this kernel is older.
func (v Version) Before(other Version) bool { return !v.AtLeast(other.Major, other.Minor) }

// AtLeast says whether this kernel is that one or a later one.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// MountPoints are the folders that podsh mounts on in every root.
var MountPoints = []string{"/proc", "/sys", "/dev"}

// EtcFiles are what podsh writes for the pod.
var EtcFiles = []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}

// under lists the mounts below path, outermost first, and what is set on them and on the one that path is on.
func (f *Facts) under(path string) (own *mountinfo.Info, below []*mountinfo.Info) {
	for _, m := range f.Mounts {
		if m.Mountpoint == path || m.Mountpoint == "/" || strings.HasPrefix(path, m.Mountpoint+"/") {
			if own == nil || len(m.Mountpoint) >= len(own.Mountpoint) {
				own = m
			}
		} else if rel, err := filepath.Rel(path, m.Mountpoint); err == nil && filepath.IsLocal(rel) {
			below = append(below, m)
		}
	}
	return own, below
}

// nativeWords lays 32-bit words out as the kernel reads them.
func nativeWords(words []uint32) []byte {
	var data []byte
	for _, w := range words {
		data = binary.NativeEndian.AppendUint32(data, w)
	}
	return data
}
