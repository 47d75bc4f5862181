package command

import (
	"bufio"
	"debug/buildinfo"
	"fmt"
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
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
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
