package container

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/machine"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
)

// etc reads the files that podsh has written for the pod, as they are now: who shares a network shares its names. pidfd
// is of the holder.
func etc(p *pod.Pod, pidfd *os.File) ([]plan.EtcFile, error) {
	root, err := machine.OpenRoot(p, pidfd)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	var list []plan.EtcFile
	for _, name := range plan.EtcFiles {
		list = append(list, plan.EtcFile{Path: name, Text: files.ReadIn(root, name)})
	}
	state, err := store.Net(p)
	if err != nil || state.ResolvConf == nil {
		return list, err
	}
	found, is, err := machine.FindResolvConf(root)
	if err == nil {
		unix.Close(found)
		list[slices.Index(plan.EtcFiles, "/etc/resolv.conf")].Shared = is == *state.ResolvConf
	}
	return list, nil // else somebody in the pod has put another there
}
