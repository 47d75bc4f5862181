package plan

import "github.com/podsh/podsh/sandbox/pod"

// Entrance is namespaces of someone else that the executor enters before it clones the pod. Whoever performs the plan
// hands it a descriptor of each, in their order: what was looked at is what is entered.
type Entrance struct {
	Flags  int    // for setns(2)
	UserNS uint64 // the number of the user namespace that it leads to; 0 if that can't be seen
	What   string
	Cmd    string   // options of nsenter(1)
	Pod    *pod.Pod // or nil
}
