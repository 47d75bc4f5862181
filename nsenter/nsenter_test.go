package nsenter

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

var somePlan = []Call{
	{Nr: unix.SYS_PRCTL, Args: []any{unix.PR_SET_DUMPABLE, 0}},
	{Nr: unix.SYS_OPENAT, Args: []any{unix.AT_FDCWD, "/", unix.O_PATH}},
	{Nr: unix.SYS_CLOSE, Args: []any{Result(1)}},
	{Nr: unix.SYS_SENDMSG, Args: []any{3, PassFD(4), 0}},
	{Nr: Exec, Args: []any{Strings([]string{"true", "x"}), Strings(nil), 0}},
}

func TestEncode(t *testing.T) {
	plan, err := Encode(somePlan, 7)
	if err != nil {
		t.Fatal(err)
	}
	if !isPlan(plan) {
		t.Error("the C side refuses a plan")
	}
	for _, bad := range []Call{{Args: []any{1.5}}, {Args: []any{Words{nil}}}, {Args: []any{1, 2, 3, 4, 5, 6, 7}}} {
		if _, err := Encode([]Call{bad}, 0); err == nil {
			t.Errorf("%v was encoded", bad.Args)
		}
	}
	if _, err := Encode(somePlan, MaxCalls-1); err == nil {
		t.Error("more calls than there is room for")
	}
}

// A plan that was cut off or changed is refused, or points into itself all the same.
func TestPlanCutOff(t *testing.T) {
	plan, err := Encode(somePlan, 0)
	if err != nil {
		t.Fatal(err)
	}
	for n := range plan {
		if isPlan(plan[:n]) {
			t.Fatalf("%d of %d bytes are taken for a plan", n, len(plan))
		}
	}
}

func FuzzPlan(f *testing.F) {
	plan, err := Encode(somePlan, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plan)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, bytes []byte) { isPlan(bytes) }) // it must not reach outside: then it would crash
}

// start starts this test binary as an executor: it links the same constructor.
func start(t *testing.T) *Executor {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	e, err := Start("/proc/self/exe", null, nil, &syscall.SysProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Kill)
	return e
}

func TestExecutorTellsWhichCallFailed(t *testing.T) {
	e := start(t)
	calls := []Call{
		{Nr: unix.SYS_UMASK, Args: []any{0}},
		{Nr: unix.SYS_MKDIRAT, Args: []any{unix.AT_FDCWD, "/", 0}, Tolerate: unix.EEXIST},
		{Nr: unix.SYS_MKDIRAT, Args: []any{unix.AT_FDCWD, "/", 0}},
	}
	if err := e.Send(calls[:2], 0); err != nil {
		t.Fatal(err)
	}
	if err := e.Wait(2); err != nil {
		t.Fatal(err)
	}
	if err := e.Send(calls[2:], 2); err != nil {
		t.Fatal(err)
	}
	var failed *CallError
	if err := e.Wait(3); !errors.As(err, &failed) || failed.Place != 2 || failed.Errno != unix.EEXIST {
		t.Errorf("%v, want call 2: file exists", err)
	}
}

func TestResultsLastFromPlanToPlan(t *testing.T) {
	e := start(t)
	if err := e.Send([]Call{{Nr: unix.SYS_OPENAT, Args: []any{unix.AT_FDCWD, "/", unix.O_PATH}}}, 0); err != nil {
		t.Fatal(err)
	}
	if err := e.Send([]Call{{Nr: unix.SYS_FCHDIR, Args: []any{Result(0)}}, {Nr: unix.SYS_CLOSE, Args: []any{Result(0)}}}, 1); err != nil {
		t.Fatal(err)
	}
	if err := e.Wait(3); err != nil {
		t.Error(err)
	}
}

func TestClone(t *testing.T) {
	e := start(t)
	before := e.PID
	if err := e.Send([]Call{{Nr: Clone, Args: []any{0}}, {Nr: unix.SYS_UMASK, Args: []any{0}}}, 0); err != nil {
		t.Fatal(err)
	}
	if err := e.Cloned(); err != nil {
		t.Fatal(err)
	}
	if err := e.Wait(2); err != nil || e.PID == before {
		t.Errorf("pid %d, was %d: %v", e.PID, before, err)
	}
}

// An executor that hears no more ends by itself.
func TestExecutorEndsWithItsSocket(t *testing.T) {
	e := start(t)
	pidfd, err := unix.PidfdOpen(e.PID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	e.Close()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 5000); n != 1 {
		t.Errorf("it is still there: %v", err)
	}
}

// A plan has no addresses where it says where they are: what was looked at once would be another the next time.
func TestPlanOverItself(t *testing.T) {
	plan, err := Encode([]Call{{Nr: 1, Args: []any{"x"}}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	table := headSize + callSize // of one relocation, and four zero bytes
	native.PutUint32(plan[table:], uint32(table))
	if isPlan(plan) {
		t.Error("a plan that changes its own relocations was taken")
	}
}
