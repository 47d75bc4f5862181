// Package rootfs knows where a pod's root file system comes from and which mounts it is made of. It gives
// lists; it mounts nothing and refuses to know in which namespace or order that happens: package sandbox
// makes steps of the lists.
package rootfs

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Source is where the root file system comes from.
type Source struct {
	Kind   string   `json:"kind"`             // "host", "dir" or "layers"
	Dir    string   `json:"dir,omitempty"`    // absolute
	Mode   string   `json:"mode,omitempty"`   // of a dir: "overlay", "ro" or "rw"; of layers: "overlay"
	Layers []string `json:"layers,omitempty"` // absolute; the lowest first
}

// Layers is a root made of folders, the lowest first, under one that takes all writes.
func Layers(folders []string) Source { return Source{Kind: "layers", Mode: "overlay", Layers: folders} }

// IsFolder says whether it is made of folders that somebody else has filled: nothing in them is trusted.
func (s Source) IsFolder() bool { return s.Kind == "dir" || s.Kind == "layers" }

// ParseSource reads host or DIR[:ro|:rw|:overlay].
func ParseSource(text string) (Source, error) {
	if text == "" {
		return Source{}, fmt.Errorf("--rootfs needs a folder, or host")
	}
	if text == "host" {
		return Source{Kind: "host"}, nil
	}
	source := Source{Kind: "dir", Dir: text, Mode: "overlay"}
	if i := strings.LastIndexByte(text, ':'); i > 0 {
		switch mode := text[i+1:]; mode {
		case "ro", "rw", "overlay":
			source.Dir, source.Mode = text[:i], mode
		}
	}
	dir, err := filepath.Abs(source.Dir)
	source.Dir = dir
	return source, err
}

// Volume is a folder or file of the host that the pod sees.
type Volume struct {
	Source      string `json:"source"`      // absolute
	Destination string `json:"destination"` // absolute, in the pod
	ReadOnly    bool   `json:"read_only,omitempty"`
}

// ParseVolume reads SRC:DST[:ro|:rw].
func ParseVolume(text string) (Volume, error) {
	parts := strings.Split(text, ":")
	bad := fmt.Errorf("--volume %q is no SRC:DST[:ro]", text)
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" {
		return Volume{}, bad
	}
	if len(parts) == 3 && parts[2] != "ro" && parts[2] != "rw" {
		return Volume{}, fmt.Errorf("--volume %q: %q is no option that it takes", text, parts[2])
	}
	source, err := filepath.Abs(parts[0])
	if err != nil {
		return Volume{}, err
	}
	v := Volume{Source: source, Destination: filepath.Clean(parts[1]), ReadOnly: len(parts) == 3 && parts[2] == "ro"}
	if !filepath.IsAbs(v.Destination) || v.Destination == "/" {
		return Volume{}, bad
	}
	return v, nil
}

// Tmpfs is an empty folder in memory, which goes with the pod.
type Tmpfs struct {
	Destination string   `json:"destination"`       // absolute, in the pod
	Options     []string `json:"options,omitempty"` // of tmpfs(5): size=, nr_inodes= and mode=
	NoExec      bool     `json:"noexec,omitempty"`
}

// ParseTmpfs reads DST[:OPTION,...]. What a tmpfs is anyway, nosuid, nodev, rw and exec, may be said as well.
func ParseTmpfs(text string) (Tmpfs, error) {
	dst, options, some := strings.Cut(text, ":")
	if !filepath.IsAbs(dst) || filepath.Clean(dst) == "/" {
		return Tmpfs{}, fmt.Errorf("--tmpfs %q is no DST[:OPTIONS]", text)
	}
	t := Tmpfs{Destination: filepath.Clean(dst)}
	if !some {
		return t, nil
	}
	for option := range strings.SplitSeq(options, ",") {
		name, value, _ := strings.Cut(option, "=")
		known := tmpfsValues[name]
		switch {
		case option == "noexec":
			t.NoExec = true
		case option == "exec":
			t.NoExec = false
		case option == "nosuid", option == "nodev", option == "rw":
		case known != nil && known(value):
			t.Options = append(t.Options, option)
		default:
			return Tmpfs{}, fmt.Errorf("--tmpfs %q: %q is no option that it takes", text, option)
		}
	}
	return t, nil
}

// tmpfsValues are the options that have values, and what those are like.
var tmpfsValues = map[string]func(value string) bool{
	"size": func(v string) bool {
		percent, ok := strings.CutSuffix(v, "%")
		return ok && isNumber(percent, 7) || isAmount(v)
	},
	"nr_inodes": isAmount,
	"mode":      func(v string) bool { n, err := strconv.ParseUint(v, 8, 32); return err == nil && n <= 0o1777 },
}

// isAmount says whether a text is a number, and perhaps a unit, that fits into what the kernel counts with.
func isAmount(text string) bool {
	bits := 62
	if text != "" {
		if i := strings.IndexByte("kmg", text[len(text)-1]|0x20); i >= 0 {
			text, bits = text[:len(text)-1], bits-10*(i+1)
		}
	}
	return isNumber(text, bits)
}

// isNumber: the kernel takes 0 for no limit, and what begins with it for another kind of number.
func isNumber(text string, bits int) bool {
	_, err := strconv.ParseUint(text, 10, bits)
	return err == nil && text[0] != '0'
}

// Mount is how it is mounted.
func (t Tmpfs) Mount() Mount {
	m := Mount{Type: "tmpfs", Target: t.Destination, Flags: unix.MS_NOSUID | unix.MS_NODEV, Why: "mount a tmpfs on " + t.Destination, Man: "tmpfs(5)"}
	if t.NoExec {
		m.Flags |= unix.MS_NOEXEC
	}
	options := t.Options
	if !slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "mode=") }) {
		options = append([]string{"mode=1777"}, options...)
	}
	m.Data = strings.Join(options, ",")
	return m
}
