package plan

import (
	"io"
	"path/filepath"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/step"
)

// Script writes the plan of a pod as a script in plain sh.
func Script(w io.Writer, p *pod.Pod, f *Facts, plan step.Plan) error {
	if _, root := ids.Translate(p.UIDMap, 0, true); len(p.UIDMap) > 0 && !root {
		return fault.New(nil, []string{"--dry-run=text shows the steps, --dry-run=json each call"},
			"a pod without a root user can't be built by a script: umount(8) is for root alone")
	}
	if unmade := f.Net.Unmade; unmade != "" {
		return fault.New(nil, []string{"podsh create --net " + unmade + " makes it; then a script can put a pod on it"}, "network %q comes into being with its first pod", unmade)
	}
	return step.Script(w, filepath.Join(f.Store, "mnt"), plan)
}
