// Package fault makes errors that a person can act on: what went wrong, which kind of error that is, for errors.Is, and what
// to do about it. It knows nothing of pods, of the kernel or of where errors are printed, and does nothing but words. Whoever knows the cause gives the
// hint; who prints it takes it from Hints.
package fault

import (
	"errors"
	"fmt"
)

// Sentinel errors, for errors.Is.
var (
	ErrNoPod         = errors.New("no such pod")
	ErrExited        = errors.New("the pod has ended")
	ErrNoContainer   = errors.New("no such container")
	ErrSeveral       = errors.New("more than one") // pod or container of that name
	ErrNoNetwork     = errors.New("no such network")
	ErrNameTaken     = errors.New("name taken")
	ErrInvalid       = errors.New("invalid")        // what the user asked for makes no sense: usage
	ErrNotFound      = errors.New("not found")      // join: status 127
	ErrNotExecutable = errors.New("not executable") // join: status 126
)

// failure is an error with words of its own, the sentinel that it is, and what to do about it.
type failure struct {
	message string
	is      error
	hints   []string
}

func (f *failure) Error() string { return f.message }

func (f *failure) Unwrap() error { return f.is }

// Hints are the lines that a person can act on.
func (f *failure) Hints() []string { return f.hints }

// New makes an error of kind is (or nil) that reads as message; hints are lines that a person can act on.
func New(is error, hints []string, format string, args ...any) error {
	return &failure{fmt.Sprintf(format, args...), is, hints}
}

// WithHint adds a hint to an error.
func WithHint(err error, format string, args ...any) error {
	return &failure{err.Error(), err, []string{fmt.Sprintf(format, args...)}}
}

// WithHints adds hints to an error.
func WithHints(err error, hints []string) error {
	return &failure{err.Error(), err, hints}
}

// Hints lists the hints that an error brings along, and all that it wraps, outermost first.
func Hints(err error) []string {
	var hints []string
	if f, ok := err.(interface{ Hints() []string }); ok {
		hints = append(hints, f.Hints()...)
	}
	switch wrapper := err.(type) {
	case interface{ Unwrap() error }:
		if inner := wrapper.Unwrap(); inner != nil {
			hints = append(hints, Hints(inner)...)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range wrapper.Unwrap() {
			hints = append(hints, Hints(inner)...)
		}
	}
	return hints
}

// Invalid is a usage error about one flag or argument.
func Invalid(format string, args ...any) error {
	return New(ErrInvalid, nil, format, args...)
}
