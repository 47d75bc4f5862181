package image

import (
	"errors"
	"fmt"
)

// Sentinel errors, for errors.Is.
var (
	ErrNoImage = errors.New("no such image")
	ErrInvalid = errors.New("invalid") // what was asked for makes no sense
)

// failure is an error with words of its own, the sentinel that it is, and what to do about it.
type failure struct {
	message string
	is      error
	hints   []string
}

func (f *failure) Error() string   { return f.message }
func (f *failure) Unwrap() error   { return f.is }
func (f *failure) Hints() []string { return f.hints }

// Fail makes an error that reads as message, with a line that a person can act on.
func Fail(is error, hint, format string, args ...any) error {
	return &failure{fmt.Sprintf(format, args...), is, []string{hint}}
}
