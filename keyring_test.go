package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The tests of keyrings are for one thread: its session keyring is what podsh inherits. None of them is parallel to
// others, who may need keys as well.

const secretKey = "podsh-test-secret"

// takeSession gives this test a session keyring with a key in it that only who has that keyring can see.
func takeSession(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // which ends with the test, and its keyring with it
	if _, err := unix.KeyctlJoinSessionKeyring("podsh-test"); err != nil {
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
	key, err := unix.AddKey("user", secretKey, []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING)
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

// showKeys are the ways into the pod web, each with a command that shows the keys which it may use.
func (h *containerHome) showKeys() [][]string {
	cat := []string{"cat", "/proc/keys"}
	run := append([]string{"run", "--rm", "--pod", "web", "--unmask", "all", "--rootfs", h.rootfs + ":ro"}, cat...)
	return [][]string{
		append([]string{"join", "web", "--"}, cat...), // by the plan that create has saved
		append([]string{"join", "--workdir", "/", "web", "--"}, cat...),
		append([]string{"join", "--user", "1", "web", "--"}, cat...),
		run,
		append([]string{"run", "--pid", "private"}, run[1:]...),
	}
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
	pod := ""
	for _, args := range h.showKeys() {
		stdout, stderr, err := h.run(args...)
		if err != nil && strings.Contains(stderr, `"1" is not mapped`) || strings.Contains(stderr, "user 1 is not mapped") {
			continue // a pod with one id
		}
		what := "podsh " + strings.Join(args, " ")
		if err != nil {
			t.Fatalf("%s: %v\n%s", what, err, stderr)
		}
		if one := sessionOf(t, what, stdout); pod == "" {
			pod = one
		} else if one != pod {
			t.Errorf("%s: keyring %s, and the pod's is %s", what, one, pod)
		}
	}
	h.must(t, "create", "--name", "other", "--unmask", "all")
	if other := sessionOf(t, "pod other", h.must(t, "join", "other", "--", "cat", "/proc/keys")); other == pod {
		t.Errorf("two pods have the keyring %s", pod)
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
	for _, pod := range []string{"web", "late"} {
		for _, args := range h.showKeys() {
			for i, arg := range args {
				if arg == "web" {
					args[i] = pod
				}
			}
			if stdout, stderr, err := h.run(args...); err == nil {
				sessionOf(t, strings.Join(args, " "), stdout)
			} else if !strings.Contains(stderr, "user 1 is not mapped") {
				t.Errorf("podsh %s: %v\n%s", strings.Join(args, " "), err, stderr)
			}
		}
	}
	h.must(t, "run", "-d", "--pod", "late", "--name", "sleeper", "--rootfs", h.rootfs+":ro", "sleep", "1000")

	revoke := fmt.Sprintf("exit(syscall(%d, %d, %d) < 0)", unix.SYS_KEYCTL, unix.KEYCTL_REVOKE, unix.KEY_SPEC_SESSION_KEYRING)
	h.must(t, "join", "web", "--", "perl", "-e", revoke)
	for _, args := range h.showKeys() {
		if stdout, stderr, err := h.run(args...); err == nil {
			sessionOf(t, "revoked: "+strings.Join(args, " "), stdout)
		} else if !strings.Contains(stderr, "user 1 is not mapped") {
			t.Errorf("revoked: podsh %s: %v\n%s", strings.Join(args, " "), err, stderr)
		}
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
