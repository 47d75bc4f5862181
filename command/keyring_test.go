package command

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests of keyrings are for one thread: its session keyring is what podsh inherits. None of them is parallel to
// others, who may need keys as well.

const secretKey = "podsh-test-secret"

// withinQuota tries until the kernel has let go of what a test before this one has used up, which takes it a moment.
func withinQuota(add func() error) error {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err := add(); !errors.Is(err, unix.EDQUOT) || time.Now().After(deadline) {
			return err
		}
	}
}

// takeSession gives this test a session keyring with a key in it that only who has that keyring can see.
func takeSession(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // which ends with the test, and its keyring with it
	err := withinQuota(func() error { _, err := unix.KeyctlJoinSessionKeyring("podsh-test"); return err })
	if err != nil {
		if os.Getenv("PODSH_MUST_WORK") != "1" {
			t.Skipf("no keyrings here: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := unix.KeyctlInt(unix.KEYCTL_CLEAR, unix.KEY_SPEC_SESSION_KEYRING, 0, 0, 0); err != nil {
			t.Error(err)
		}
	})
	var key int
	err = withinQuota(func() (err error) {
		key, err = unix.AddKey("user", secretKey, []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const possessor = 0x3f << 24
	if err := unix.KeyctlSetperm(key, possessor); err != nil {
		t.Fatal(err)
	}
	if keys, err := os.ReadFile("/proc/keys"); err != nil || !strings.Contains(string(keys), secretKey) {
		t.Fatalf("outside the key should be there: %v\n%s", err, keys)
	}
}

// sessionOf reads in what `cat /proc/keys` says in a pod which session keyring that has: only who has it can see it.
func sessionOf(t *testing.T, what, keys string) string {
	t.Helper()
	if strings.Contains(keys, secretKey) {
		t.Errorf("%s: the caller's key can be used:\n%s", what, keys)
	}
	found := regexp.MustCompile(`(?m)^([0-9a-f]{8}) .* keyring +(_tid|podsh\.[0-9a-f]{24}):`).FindAllStringSubmatch(keys, -1)
	if len(found) != 1 {
		t.Fatalf("%s: no keyring of the pod's, or more than one:\n%s", what, keys)
	}
	return found[0][1]
}

// sessions goes into a pod in all the ways that there are, and returns the keyrings that it has there.
func (h *containerHome) sessions(t *testing.T, pod string) (keyrings []string) {
	t.Helper()
	run := []string{"run", "--rm", "--pod", pod, "--unmask", "all", "--rootfs", h.rootfs + ":ro", "cat", "/proc/keys"}
	for _, args := range [][]string{
		{"join", pod, "--", "cat", "/proc/keys"}, // by the plan that create has saved
		{"join", "--workdir", "/", pod, "--", "cat", "/proc/keys"},
		{"join", "--user", "1", pod, "--", "cat", "/proc/keys"},
		run,
		append([]string{"run", "--pid", "private"}, run[1:]...),
	} {
		what := "podsh " + strings.Join(args, " ")
		stdout, stderr, err := h.run(args...)
		if strings.Contains(stderr, "user 1 is not mapped") {
			continue // a pod with one id
		}
		if err != nil {
			t.Fatalf("%s: %v\n%s", what, err, stderr)
		}
		keyrings = append(keyrings, sessionOf(t, what, stdout))
	}
	return keyrings
}

// newKeyHome is a home with a pod called web in which /proc/keys can be read.
func newKeyHome(t *testing.T) *containerHome {
	t.Helper()
	h := newContainerHome(t)
	h.must(t, "rm", "-f", "web")
	h.must(t, "create", "--name", "web", "--unmask", "all")
	return h
}

// TestKeyring: a key of the caller's is in the session's keyring, and no process of a pod has that. All those of a pod
// have one, and another pod another.
func TestKeyring(t *testing.T) {
	takeSession(t)
	h := newKeyHome(t)
	h.must(t, "create", "--name", "other", "--unmask", "all")
	web, other := slices.Compact(h.sessions(t, "web")), slices.Compact(h.sessions(t, "other"))
	if len(web) != 1 || len(other) != 1 || web[0] == other[0] {
		t.Errorf("a pod has the keyrings %q, another one %q", web, other)
	}
}

// TestKeyQuota: a user who may have no more keys can make pods, and look into those he has, even if somebody in there
// has taken their keyring away. The caller's is as far away as ever.
func TestKeyQuota(t *testing.T) {
	if os.Getuid() == 0 {
		return // who may have a million
	}
	takeSession(t)
	h := newKeyHome(t)
	fillKeys(t)
	h.must(t, "create", "--name", "late", "--unmask", "all")
	h.sessions(t, "web")
	h.sessions(t, "late")
	h.must(t, "run", "-d", "--pod", "late", "--name", "sleeper", "--rootfs", h.rootfs+":ro", "sleep", "1000")

	revoke := fmt.Sprintf("exit(syscall(%d, %d, %d) < 0)", unix.SYS_KEYCTL, unix.KEYCTL_REVOKE, unix.KEY_SPEC_SESSION_KEYRING)
	h.must(t, "join", "web", "--", "perl", "-e", revoke)
	h.sessions(t, "web")
}

// TestKeyQuotaOfRoot: who is root of a user namespace has no more keys than its owner, and makes pods all the same.
func TestKeyQuotaOfRoot(t *testing.T) {
	if os.Getuid() == 0 {
		return // who may have a million
	}
	takeSession(t)
	h := newTestHome(t)
	fillKeys(t)
	out, err := h.inMountNamespace("sh", "-c", `podsh create --name late && podsh join late -- sh -c 'grep -c podsh-test- /proc/keys; echo in'
podsh rm -f late`).CombinedOutput()
	if text := string(out); err != nil || !strings.Contains(text, "podsh: warning: no key is left") || !strings.HasSuffix(text, "\nin\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

// fillKeys adds keys to the session's keyring until there may be no more.
func fillKeys(t *testing.T) {
	t.Helper()
	for i := range 100000 {
		_, err := unix.AddKey("user", fmt.Sprint("podsh-test-", i), []byte("x"), unix.KEY_SPEC_SESSION_KEYRING)
		if errors.Is(err, unix.EDQUOT) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("there is no end of keys")
}
