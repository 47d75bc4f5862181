package spec

import (
	"path"
	"slices"
	"strings"

	"github.com/podsh/podsh/sandbox/fault"
)

// JoinSpec is how a command runs in a pod.
type JoinSpec struct {
	Command    []string // none means an interactive shell
	TTY        bool
	Rows, Cols uint16   // of that terminal
	User       string   // UID[:GID] or a name of the pod's; "" means the pod's own default
	Workdir    string   // "" means that of the container; in a pod the user's home
	Env        []string // KEY=VALUE
	CapAdd     []string
	CapDrop    []string
	Only       []string // namespaces to join; none means all
	Listen     []Socket // on the host, that the command is given
	Term       string   // the caller's $TERM, for a terminal
	HostEnv    []string // the caller's environment, for a command that keeps the host's mounts
}

// Validate says what is wrong with it by itself.
func (j *JoinSpec) Validate() error {
	if err := validateEnv(j.Env); err != nil {
		return err
	}
	if err := ValidateCapabilities(j.CapAdd, j.CapDrop); err != nil {
		return err
	}
	if err := ValidateSockets(j.Listen); err != nil {
		return err
	}
	if j.Workdir != "" && !path.IsAbs(j.Workdir) {
		return fault.New(fault.ErrInvalid, []string{"--workdir /PATH, in the pod"}, "--workdir %q is no absolute path", j.Workdir)
	}
	for _, name := range j.Only {
		if !slices.ContainsFunc(Namespaces, func(ns Namespace) bool { return ns.Name == name }) {
			var known []string
			for _, ns := range Namespaces {
				known = append(known, ns.Name)
			}
			return fault.New(fault.ErrInvalid, []string{"--only takes some of " + strings.Join(known, ",")}, "no namespace %q", name)
		}
	}
	return nil
}
