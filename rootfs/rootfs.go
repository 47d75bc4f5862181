// Package rootfs knows where a pod's root file system comes from and which mounts it is made of. It gives
// lists; it mounts nothing and refuses to know in which namespace or order that happens: package sandbox
// makes steps of the lists.
package rootfs

import (
	"fmt"
	"path/filepath"
	"strings"
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
		return Volume{}, bad
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
