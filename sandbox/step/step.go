// Package step is what plans consist of: system calls of the pod's side and functions of the host's, each with its why
// and the same by hand; and plans as they are shown, as text, as JSON and as a script. It knows no pod: what is done to
// make one is decided elsewhere.
package step

import (
	"github.com/podsh/podsh/nsenter"
)

// Side says who performs a step.
type Side string

const (
	Host   Side = "host" // podsh, where the user is
	Inside Side = "pod"  // the executor, in the new namespaces
)

// Step is one thing podsh does to the system, and how a person would do it by hand. A step of the pod's side
// is one system call; one of the host's side is a function in hostCalls.
//
// A step without Why belongs to the one before it: it takes more than one call to do what that one says.
type Step struct {
	Side Side
	Call nsenter.Call // pod
	Host string       // host: key into hostCalls
	Why  string       // "give the pod its own host name"
	Cmd  string       // "hostname web": the same by hand, in sh; $HOLDER is its pid, $root where the root is built
	Man  string       // "uts_namespaces(7)"
	Role Role         // what the script must know about Cmd
	Need string       // a hint for where a name that somebody gave means nothing in the pod: by hand that is no better
}

// Role of a command in the script: most are simply run where the step is.
type Role int

const (
	plain  Role = iota
	Start       // starts the holder: all that follows on the pod's side runs in it
	Become      // replaces the shell in the holder by one with other ids
	Last        // replaces the shell in the holder by the pause program
	Folder      // goes to the folder where the command starts, which is run as any other
)

// Plan is all that podsh does to make or enter a pod, in this order.
type Plan []Step

// Calls returns the calls of the pod's side, in order.
func (p Plan) Calls() []nsenter.Call {
	var calls []nsenter.Call
	for _, step := range p {
		if step.Side == Inside {
			calls = append(calls, step.Call)
		}
	}
	return calls
}

// At finds the step whose call stands at place among the pod's, and the step that says why.
func (p Plan) At(place int) (step, why Step, ok bool) {
	n := 0
	for _, s := range p {
		if s.Why != "" {
			why = s
		}
		if s.Side != Inside {
			continue
		}
		if n == place {
			return s, why, true
		}
		n++
	}
	return Step{}, Step{}, false
}
