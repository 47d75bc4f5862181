package command

import (
	"bufio"
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox"
)

// podshBinary is the program under test: the sessions, and other tests of this package, run it as its users do. A test binary
// can't stand in for it: a holder that is one would run all tests again, as PID 1.
var podshBinary string

// testDir is a folder for what all tests share, and gone with them.
var testDir string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "podsh-test")
	if err == nil {
		err = goToTop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	testDir = dir
	podshBinary = os.Getenv("PODSH_BINARY") // scripts/test has built it
	if podshBinary == "" {
		podshBinary = filepath.Join(dir, "podsh")
		if out, err := exec.Command("go", "build", "-o", podshBinary, ".").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// goToTop goes to the top of the tree: there the names of files begin that tests have. In a lab they are there.
func goToTop() error {
	if exists("go.mod") {
		return nil
	}
	return os.Chdir("..")
}

// TestSessions runs the scripts in scripts/testdata/sessions, but for those of the network (lab_test.go). They
// read like a terminal, one behaviour a file. Besides testscript's own verbs there are those of sessionVerbs.
func TestSessions(t *testing.T) {
	t.Parallel() // with those in the lab
	runSessions(t, func(name string) bool { return !strings.HasPrefix(name, labSessions) })
}

func runSessions(t *testing.T, of func(name string) bool) {
	all, err := filepath.Glob("scripts/testdata/sessions/*.txtar")
	files := slices.DeleteFunc(all, func(file string) bool { return !of(filepath.Base(file)) })
	if err != nil || len(files) == 0 {
		t.Fatalf("no sessions (%v)", err)
	}
	deadline, _ := t.Deadline() // of -test.timeout: what hangs is ended, and fails
	verbs := maps.Clone(sessionVerbs)
	maps.Copy(verbs, labVerbs)
	maps.Copy(verbs, imageVerbs)
	testscript.RunT(strict{t, lab() != ""}, testscript.Params{
		Files:              files,
		Setup:              setUpSession,
		Condition:          sessionCondition,
		Cmds:               verbs,
		RequireUniqueNames: true,
		Deadline:           deadline,
	})
}

// strict is a test in which nothing may be skipped where PODSH_MUST_WORK says so. A session that is only
// for root, say, ends with stop rather than with skip.
type strict struct {
	*testing.T
	inTurn bool // one session after the other
}

func (s strict) Run(name string, f func(testscript.T)) {
	s.T.Run(name, func(t *testing.T) { f(strict{t, s.inTurn}) })
}

func (s strict) Parallel() {
	if !s.inTurn {
		s.T.Parallel()
	}
}

func (s strict) Skip(args ...any) {
	s.Helper()
	if os.Getenv("PODSH_MUST_WORK") == "1" {
		s.Fatal(append([]any{"skipped, but PODSH_MUST_WORK=1: "}, args...)...)
	}
	s.T.Skip(args...)
}

func (s strict) Verbose() bool { return false } // a log only of what fails

// setUpSession gives a session a store of its own, and a copy of podsh of its own, by which its processes
// are known.
func setUpSession(env *testscript.Env) error {
	home, err := newHome(env.WorkDir)
	if err != nil {
		return err
	}
	for _, v := range home.env() {
		name, value, _ := strings.Cut(v, "=")
		env.Setenv(name, value)
	}
	env.Setenv("ROOTFS", filepath.Join(env.WorkDir, "rootfs")) // made by the verb rootfs
	env.Setenv("UID", strconv.Itoa(os.Getuid()))
	env.Setenv("REGISTRY_AUTH_FILE", filepath.Join(env.WorkDir, ".auth.json")) // nobody's: there is none
	if dir := os.Getenv("PODSH_TEST_IMAGES"); dir != "" {                      // localhost/images:TAG is what podsh calls what it pulls from here
		env.Setenv("IMAGES", filepath.Join(env.WorkDir, "images"))
		if err := os.Symlink(dir, env.Getenv("IMAGES")); err != nil {
			return err
		}
	}
	if lab() != "" {
		if err := setUpInLab(env); err != nil {
			return err
		}
	}
	env.Defer(func() {
		if left := home.clear(); left != "" {
			env.T().Fatal("left over: ", left)
		}
	})
	return nil
}

func hasRaceDetector(program string) (bool, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return false, err
	}
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}), nil
}

func sessionCondition(condition string) (bool, error) {
	name, value, _ := strings.Cut(condition, ":")
	switch name {
	case "root":
		return os.Getuid() == 0, nil
	case "subids": // this user has ranges of ids, which newuidmap(1) may map
		return hasSubIDs(), nil
	case "oneid": // this user's user namespace, which is not the host's, has one id
		text, err := os.ReadFile("/proc/self/uid_map")
		fields := strings.Fields(string(text))
		return len(fields) == 3 && fields[2] == "1", err
	case "embedded": // podsh's other programs lie in its file, as scripts/test builds it; plain go build links them
		return os.Getenv("PODSH_BINARY") != "", nil
	case "race": // podsh has the race detector, which maps terabytes
		return hasRaceDetector(podshBinary)
	case "images": // those that scripts/images makes are there
		return os.Getenv("PODSH_TEST_IMAGES") != "", nil
	case "linux": // [linux:6.9]: this version or newer
		return kernelAtLeast(value)
	}
	return false, fmt.Errorf("no condition %q", condition)
}

func hasSubIDs() bool {
	me, err := user.Current()
	if err != nil {
		return false
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		text, _ := os.ReadFile(file) // a file that isn't there names no one
		if !regexp.MustCompile(`(?m)^(` + regexp.QuoteMeta(me.Username) + `|` + me.Uid + `):`).Match(text) {
			return false
		}
	}
	_, err = exec.LookPath("newuidmap")
	return err == nil
}

func kernelAtLeast(version string) (bool, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return false, err
	}
	var have, want [2]int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &have[0], &have[1]); err != nil {
		return false, err
	}
	if _, err := fmt.Sscanf(version, "%d.%d", &want[0], &want[1]); err != nil {
		return false, err
	}
	return slices.Compare(have[:], want[:]) >= 0, nil
}

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
	store := sandbox.Store{Path: ts.Getenv("PODSH_ROOT")}
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

// copyFile makes a program to run. No process may be forked meanwhile: it would hold the file open for
// writing until it execs, and what is open for writing can't be run, execve(2).
func copyFile(from, to string, mode fs.FileMode) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(to, text, mode)
}

// home is where one test's pods live: a store, and a copy of podsh that no other test runs. Which processes
// are this test's is told by the file they run from; a name or a parent would not tell.
type home struct {
	dir   string
	podsh string
}

func newHome(dir string) (*home, error) {
	h := &home{dir, filepath.Join(dir, ".bin", "podsh")}
	if err := os.MkdirAll(filepath.Dir(h.podsh), 0o755); err != nil {
		return nil, err
	}
	return h, copyFile(podshBinary, h.podsh, 0o755)
}

func (h *home) root() string { return filepath.Join(h.dir, ".pods") }

func (h *home) images() string { return filepath.Join(h.dir, ".local/share/podsh/images") }

// env is what a person's shell would have, with this test's podsh first in PATH.
func (h *home) env() []string {
	return []string{
		"PATH=" + filepath.Dir(h.podsh) + ":" + os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin",
		"PODSH_ROOT=" + h.root(),
		"HOME=" + h.dir,
		"LANG=C.UTF-8",
	}
}

// run runs podsh and returns what it wrote, on stdout and on stderr.
func (h *home) run(args ...string) (stdout, stderr string, err error) {
	cmd := h.command(args...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err = cmd.Run()
	return out.String(), complaints.String(), err
}

func (h *home) command(args ...string) *exec.Cmd {
	cmd := exec.Command(h.podsh, args...)
	cmd.Env = h.env()
	return cmd
}

// clear removes all pods and returns what is left nevertheless: processes that run this test's podsh (they
// are killed), or files in its store. Ends are awaited, for a while.
func (h *home) clear() string {
	if _, err := os.Stat(h.root()); err == nil {
		// A session may have spoilt the store on purpose: then the processes tell.
		_ = h.command("rm", "--force", "--all").Run()
	}
	if _, err := os.Stat(h.images()); err == nil {
		_ = h.command("image", "prune", "--all").Run() // files of layers may belong to ids that only podsh can be
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := h.processes()
		if len(left) == 0 {
			return strings.Join(h.files(), ", ")
		}
		if time.Now().After(deadline) {
			return strings.Join(h.kill(left), ", ")
		}
	}
}

// processes lists those that run this test's podsh.
func (h *home) processes() []int {
	mine, err := os.Stat(h.podsh)
	if err != nil {
		return nil
	}
	var pids []int
	entries, _ := os.ReadDir("/proc") // /proc is there
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if exe, err := os.Stat(filepath.Join("/proc", entry.Name(), "exe")); err == nil && os.SameFile(exe, mine) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// files lists what is in the store, or was written by pods, though there are none.
func (h *home) files() []string {
	var left []string
	for _, pattern := range []string{"pods/*", "names/*", "mnt/*", "new-*", "gone-*", "hub", "leases"} {
		found, _ := filepath.Glob(filepath.Join(h.root(), pattern)) // the patterns are good ones
		left = append(left, found...)
	}
	written, _ := filepath.Glob(filepath.Join(h.dir, ".local/share/podsh/upper/*")) // by pods, on disk
	left = append(left, written...)
	for _, pattern := range []string{"blobs/sha256/*", "layers/*/[!l]*"} { // of images; lock-* stays
		found, _ := filepath.Glob(filepath.Join(h.images(), pattern))
		left = append(left, found...)
	}
	return left
}

func (h *home) kill(pids []int) []string {
	var names []string
	for _, pid := range pids {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // it may have gone just now
		words := strings.Join(strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00"), " ")
		names = append(names, fmt.Sprintf("process %d (%s)", pid, words))
		_ = unix.Kill(pid, unix.SIGKILL) // and may have gone now
	}
	return names
}

// TestSessionsSayWhatTheyAreAbout: the first line of each is a sentence about the one thing it shows.
func TestSessionsSayWhatTheyAreAbout(t *testing.T) {
	files, err := filepath.Glob("scripts/testdata/sessions/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no sessions (%v)", err)
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(f)
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), "# ") {
			t.Errorf("%s: the first line does not say what it is about", file)
		}
		f.Close()
	}
}
