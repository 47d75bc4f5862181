package command

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/sandbox/doctor"
	"github.com/podsh/podsh/sandbox/fault"
)

// Exit statuses. Those of a command in a pod are its own; STYLE of shells: 128+N for signal N.
const (
	exitError         = 1   // podsh's error
	exitUsage         = 2   // podsh was called wrongly
	exitJoinError     = 125 // join: podsh's error, usage or not: 1 and 2 may be the command's own
	exitNotExecutable = 126
	exitNotFound      = 127
)

// report prints an error, the only place that does, and returns the exit status.
func report(args []string, err error) int {
	var status statusError
	if errors.As(err, &status) {
		return int(status)
	}
	if topic, ok := strings.CutPrefix(err.Error(), "No help topic for "); ok { // package cli's -h takes a command
		err = usagef("--hostname "+strings.Trim(topic, "'")+", if that is meant; -h alone shows the help", "-h takes no value, but got %s", topic)
	}
	say("error", err)
	isJoin := len(args) > 1 && (Join().HasName(args[1]) || args[1] == "run")
	switch {
	case errors.Is(err, fault.ErrNotFound):
		return exitNotFound
	case errors.Is(err, fault.ErrNotExecutable):
		return exitNotExecutable
	case isJoin:
		return exitJoinError
	case errors.Is(err, fault.ErrInvalid):
		return exitUsage
	}
	return exitError
}

// warn tells people of something that is no error.
func warn(what error) { say("warning", what) }

// say tells it as text: others choose words in it, a registry or who has filled a pod's files, and may mean the terminal.
func say(kind string, what error) {
	err := &visible{out: os.Stderr}
	fmt.Fprintf(err, "podsh: %s: %v\n", kind, what)
	for _, hint := range doctor.Hints(what) {
		fmt.Fprintf(err, "podsh: hint: %s\n", hint)
	}
}

// statusError ends podsh with a status and no more words.
type statusError int

func (s statusError) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// hinted gives an error a hint that has none.
func hinted(err error, hint string) error {
	if err == nil || len(doctor.Hints(err)) > 0 {
		return err
	}
	return image.Fail(err, hint, "%v", err)
}

// usageless is an error with a hint that is no error in how podsh was called.
func usageless(hint, format string, args ...any) error { return image.Fail(nil, hint, format, args...) }
