package ask

import (
	"errors"
	"time"
)

// A supervisor is there while a pod has detached containers: their parent, who writes their logs, starts them once more
// as their policies say, and writes down how they ended. It is podsh itself, started anew:
//
//	podsh@supervise STORE POD
//
// It goes with the last of its containers. Its containers go with it: each has asked the kernel for that
// (PR_SET_PDEATHSIG), and when it is killed their output would have no reader any more. What it knows is on disk
// (ContainerState), so the next command that looks at the containers sees what happened, ends what the kernel has
// left of them, and starts a new supervisor for those that are to start once more.

// SuperviseName is the argv[0] of a supervisor.
const SuperviseName = "podsh@supervise"

// What a supervisor is asked for.
const (
	AskStart  = "start"  // Container; with descriptors: and attach them
	AskAttach = "attach" // Container; descriptors: a stream of its terminal, or where its output goes to
	AskResize = "resize" // the terminal of Container: Rows, Columns
	AskStop   = "stop"   // Container: Signal, and Seconds later SIGKILL; it does not start once more
	AskWait   = "wait"   // until Container has ended; the answer has its status
)

// SuperviseRequest asks a supervisor for one thing: Do is one of the words above.
type SuperviseRequest struct {
	Do        string        `json:"do"`
	Container string        `json:"container"`
	Signal    int           `json:"signal,omitempty"`
	Grace     time.Duration `json:"grace,omitempty"`
	Rows      uint16        `json:"rows,omitempty"`
	Columns   uint16        `json:"columns,omitempty"`
	Term      string        `json:"term,omitempty"`
	Input     bool          `json:"input,omitempty"` // the first descriptor is read from
}

// SuperviseAnswer is what came of it. ExitCode is as a shell would give it.
type SuperviseAnswer struct {
	Error    string   `json:"error,omitempty"`
	Hints    []string `json:"hints,omitempty"`
	Kind     string   `json:"kind,omitempty"` // of error: "not found" or "not executable"
	ExitCode int      `json:"exit_code"`
	Ended    bool     `json:"ended,omitempty"` // stop: it had ended already
	Stubborn bool     `json:"stubborn,omitempty"`
}

// SuperviseReadyFD is the descriptor on which a new supervisor says that it listens, or why it does not.
const SuperviseReadyFD = 3

// ErrSupervised says that somebody else is the pod's supervisor.
var ErrSupervised = errors.New("the pod has a supervisor")

// ErrEnded says that the container does not run.
var ErrEnded = errors.New("it has ended")
