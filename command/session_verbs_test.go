package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/store"
)

// sessionVerbs are what a session can do besides testscript's own verbs. exits, refused and eventually take
// a command line behind them.
var sessionVerbs = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"podsh":      verbPodsh,
	"exits":      verbExits,
	"refused":    verbRefused,
	"eventually": verbEventually,
	"holder":     verbHolder,
	"json":       verbJSON,
	"remember":   verbRemember,
	"layout":     verbLayout,
	"rootfs":     verbRootfs,
	"send":       verbSend,
	"tarball":    verbTarball,
}

// podsh ARG...
func verbPodsh(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("podsh", args...)
	switch {
	case neg && err == nil:
		ts.Fatalf("podsh should not have succeeded")
	case !neg && err != nil:
		ts.Fatalf("podsh: %v", err)
	}
}

// exits STATUS CMD ARG...: CMD ends with this status.
func verbExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS CMD [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	if got := exitStatus(err); strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status %d, not %s (%v)", got, args[0], err)
	}
}

func exitStatus(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		return -1
	}
	return exit.ExitCode()
}

var (
	errorLine = regexp.MustCompile(`(?m)^podsh: error: \S.*[^.\n]$`)
	rudeWords = regexp.MustCompile(`(?i:failed to|unable to)|podsh: error: [A-Z][a-z]`)
	hintLine  = regexp.MustCompile(`(?m)^podsh: hint: \S`)
)

// refused STATUS podsh ARG...: an error as a user should see it, with this status. It says what is wrong and
// what to do, on stderr alone, and leaves nothing half-made behind.
func verbRefused(ts *testscript.TestScript, neg bool, args []string) {
	pods := filepath.Join(ts.Getenv("PODSH_ROOT"), "*", "*")
	before, _ := filepath.Glob(pods) // the pattern is a good one
	verbExits(ts, neg, args)
	stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	after, _ := filepath.Glob(pods)
	switch {
	case stdout != "":
		ts.Fatalf("an error, but there is something on stdout")
	case !errorLine.MatchString(stderr) || rudeWords.MatchString(stderr):
		ts.Fatalf("stderr has no line `podsh: error: …` as it should be")
	case !hintLine.MatchString(stderr):
		ts.Fatalf("the error comes without a hint")
	case !slices.Equal(before, after):
		ts.Fatalf("the store has changed: %q, now %q", before, after)
	}
}

// eventually [!] CMD ARG...: within half a minute CMD succeeds, or fails.
func verbEventually(ts *testscript.TestScript, neg bool, args []string) {
	fails := len(args) > 0 && args[0] == "!"
	if fails {
		args = args[1:]
	}
	if neg || len(args) == 0 {
		ts.Fatalf("usage: eventually [!] CMD [ARG...]")
	}
	const patience = 30 * time.Second
	start := time.Now()
	for pause := 10 * time.Millisecond; ; pause += pause / 2 {
		err := ts.Exec(args[0], args[1:]...)
		switch {
		case (err != nil) == fails:
			return
		case time.Since(start) > patience:
			ts.Fatalf("not within %v (%v)", patience, err)
		}
		time.Sleep(min(pause, time.Second))
	}
}

// remember NAME: what was on stdout becomes the variable NAME.
func verbRemember(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: remember NAME")
	}
	value := strings.TrimSpace(ts.ReadFile("stdout"))
	if value == "" {
		ts.Fatalf("nothing on stdout to remember")
	}
	ts.Setenv(args[0], value)
}

// holder POD: the variable HOLDER becomes the pid of the pod's holder.
func verbHolder(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: holder POD")
	}
	store := store.Store{Path: ts.Getenv("PODSH_ROOT")}
	pod, err := store.Find(args[0])
	ts.Check(err)
	ts.Setenv("HOLDER", strconv.Itoa(pod.Holder.PID))
}

// json: what was on stdout is JSON.
func verbJSON(ts *testscript.TestScript, neg bool, args []string) {
	var value any
	if neg || len(args) != 0 {
		ts.Fatalf("usage: json")
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &value))
}

// send SIGNAL PATTERN: sends a signal to the session's own podsh whose command line matches.
func verbSend(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: send SIGNAL PATTERN")
	}
	sig := unix.SignalNum("SIG" + args[0])
	if n, err := strconv.Atoi(args[0]); err == nil {
		sig = syscall.Signal(n)
	}
	pattern := regexp.MustCompile(args[1])
	for _, cmd := range ts.BackgroundCmds() {
		if pattern.MatchString(strings.Join(cmd.Args, " ")) {
			ts.Check(cmd.Process.Signal(sig))
			return
		}
	}
	ts.Fatalf("nothing in the background matches %q", args[1])
}

// rootfs DIR: makes a small root file system of busybox, which needs no libraries.
func verbRootfs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: rootfs DIR")
	}
	ts.Check(makeRootfs(ts.MkAbs(args[0])))
}

func makeRootfs(dir string) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("busybox-static is needed: %w", err)
	}
	for _, sub := range []string{"bin", "dev", "etc", "home/ann", "proc", "root", "sys", "tmp", "var/tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	if err := copyFile(busybox, filepath.Join(dir, "bin/busybox"), 0o755); err != nil {
		return err
	}
	for _, name := range []string{"sh", "cat", "ls", "id", "env", "pwd", "echo", "touch", "mkdir", "rm", "ln",
		"hostname", "sleep", "true", "ps", "mount", "stat", "readlink", "kill", "grep", "head", "test", "umount"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	const passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:Ann:/home/ann:/bin/sh\n"
	if err := os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte(passwd), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "etc/group"), []byte("root:x:0:\nann:x:1000:\n"), 0o644)
}
