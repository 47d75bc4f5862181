package machine

import (
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/sandbox/plan"
)

// ReadLayers looks at a root made of layers, the lowest first.
func ReadLayers(f *plan.Facts, layers []string) {
	f.Dir = plan.DirFacts{Missing: map[string]bool{}, Files: map[string]bool{}}
	for _, dir := range plan.MountPoints {
		f.Dir.Missing[dir] = true // or not: it is made sure of
	}
	for _, name := range plan.EtcFiles {
		mode, _, _, err := image.StatIn(layers, name)
		f.Dir.Files[name] = err == nil && mode&unix.S_IFMT == unix.S_IFREG
	}
	f.Passwd, _ = image.LookUp(layers, "/etc/passwd") // none has nothing to say
	f.Group, _ = image.LookUp(layers, "/etc/group")
}
