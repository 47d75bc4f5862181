package plan

import (
	"os"

	"github.com/podsh/podsh/sandbox/pod"
)

// Entrance is namespaces of someone else that the executor enters before it clones the pod. The descriptor
// is handed to it: what was checked is what is entered.
type Entrance struct {
	File  *os.File
	Flags int // for setns(2)
	What  string
	Cmd   string   // options of nsenter(1)
	Pod   *pod.Pod // or nil
}
