package sandbox

import (
	"errors"

	"github.com/podsh/podsh/sandbox/fault"
)

// StartStatus is the status of a command that could not be started, as docker has it.
func StartStatus(err error) int {
	switch {
	case errors.Is(err, fault.ErrNotFound):
		return 127
	case errors.Is(err, fault.ErrNotExecutable):
		return 126
	}
	return 125
}
