package ask

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/store"
)

// noSupervisor is what the program of these tests says when it is started as a supervisor, on the store and the pod that
// it is given.
const noSupervisor = "no supervisor of %s in %s, with a session of its own: %v"

func TestMain(m *testing.M) {
	if os.Args[0] == SuperviseName {
		sid, _ := unix.Getsid(0)
		fmt.Fprintf(os.NewFile(SuperviseReadyFD, "ready"), noSupervisor, os.Args[2], os.Args[1], sid == os.Getpid())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// described is a pod that nobody runs, in a store of its own: all that is asked of its supervisor is its socket.
func described(t *testing.T) *pod.Pod {
	t.Helper()
	p := &pod.Pod{ID: store.NewID(), Root: t.TempDir()}
	if err := os.MkdirAll(store.StoreOf(p).Below("pods", p.ID), 0o700); err != nil {
		t.Fatal(err)
	}
	return p
}

// listen takes the place of the pod's supervisor: each connection is answered, and then closed.
func listen(t *testing.T, p *pod.Pod, answer func(conn *os.File)) {
	t.Helper()
	listener, err := proc.ListenAs(store.StoreOf(p).Below("pods", p.ID), store.SupervisorName)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			fd, _, err := unix.Accept4(int(listener.Fd()), unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			conn := os.NewFile(uintptr(fd), "client")
			answer(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = unix.Shutdown(int(listener.Fd()), unix.SHUT_RDWR) // accept(2) returns
		<-done
		listener.Close()
	})
}

// answers takes one request in, and answers it. asked may be nil.
func answers(t *testing.T, asked chan<- SuperviseRequest, answer any) func(*os.File) {
	return func(conn *os.File) {
		var request SuperviseRequest
		files, err := control.Receive(conn, &request)
		control.Close(files)
		if asked != nil {
			asked <- request
		}
		if err == nil {
			err = control.Send(conn, answer)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	p := described(t)
	if _, err := DialSupervisor(p); err != ErrNoSupervisor {
		t.Errorf("without a socket: %v", err)
	}
	listener, err := proc.ListenAs(store.StoreOf(p).Below("pods", p.ID), store.SupervisorName)
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if _, err := DialSupervisor(p); err != ErrNoSupervisor {
		t.Errorf("with the socket of one that was killed: %v", err)
	}
	path := store.StoreOf(p).Below("pods", p.ID, store.SupervisorName)
	if err := errors.Join(os.Remove(path), os.Symlink(store.SupervisorName, path)); err != nil {
		t.Fatal(err)
	}
	if _, err := DialSupervisor(p); err == nil || errors.Is(err, ErrNoSupervisor) || !strings.Contains(err.Error(), p.ID) {
		t.Errorf("where nobody can connect: %v", err)
	}
}

func TestASupervisorThatCannotStartSaysWhy(t *testing.T) {
	p := described(t)
	_, err := EnsureSupervisor(p)
	if want := fmt.Sprintf(noSupervisor, p.ID, p.Root, true); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestARequestAndItsAnswer(t *testing.T) {
	p := described(t)
	asked := &SuperviseRequest{Do: AskStop, Container: "0123456789ab", Signal: 15, Grace: time.Minute, Rows: 2, Columns: 3, Term: "vt100", Input: true}
	said := &SuperviseAnswer{Error: "no", Hints: []string{"yes"}, Kind: "not found", ExitCode: 4, Ended: true, Stubborn: true}
	came := make(chan SuperviseRequest, 1)
	listen(t, p, answers(t, came, said))
	answer, conn, err := Ask(p, asked)
	if got := <-came; conn == nil || got != *asked || fmt.Sprint(answer) != fmt.Sprint(said) {
		t.Fatalf("%+v was asked as %+v, and %+v told as %+v: %v", asked, got, said, answer, err)
	}
	conn.Close()
	if !errors.Is(err, fault.ErrNotFound) || err.Error() != "no" || !slices.Equal(fault.Hints(err), []string{"yes"}) {
		t.Errorf("%v %q", err, fault.Hints(err))
	}
}

func TestWordsAreErrorsAgain(t *testing.T) {
	for _, test := range []struct {
		answer SuperviseAnswer
		is     error
	}{
		{SuperviseAnswer{Error: "a", Kind: "not found"}, fault.ErrNotFound},
		{SuperviseAnswer{Error: "a", Kind: "not executable"}, fault.ErrNotExecutable},
		{SuperviseAnswer{Error: "100 % of it"}, nil},
	} {
		err := test.answer.AsError()
		if err == nil || err.Error() != test.answer.Error || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%+v: %v", test.answer, err)
		}
		if other := errors.Is(err, fault.ErrNotFound) || errors.Is(err, fault.ErrNotExecutable); other != (test.is != nil) {
			t.Errorf("%+v: %v is of another kind", test.answer, err)
		}
	}
	if err := (&SuperviseAnswer{Kind: "not found", ExitCode: 1}).AsError(); err != nil {
		t.Errorf("no error: %v", err)
	}
}

// TestOneThatGoesIsFollowedByAnother: a supervisor that goes just when it is asked has not done it.
func TestOneThatGoesIsFollowedByAnother(t *testing.T) {
	p := described(t)
	went := 0
	listen(t, p, func(conn *os.File) {
		if went++; went < 4 {
			return
		}
		answers(t, nil, &SuperviseAnswer{ExitCode: 7})(conn)
	})
	answer, conn, err := Ask(p, &SuperviseRequest{Do: AskWait})
	if err != nil || answer.ExitCode != 7 {
		t.Fatalf("%+v, %v", answer, err)
	}
	conn.Close()
}

func TestNotForEver(t *testing.T) {
	p := described(t)
	listen(t, p, func(*os.File) {})
	if _, _, err := Ask(p, &SuperviseRequest{Do: AskWait}); err == nil || !strings.HasSuffix(err.Error(), "again and again") || len(fault.Hints(err)) != 1 {
		t.Errorf("%v %q", err, fault.Hints(err))
	}
}

func TestAnAnswerThatIsNone(t *testing.T) {
	p := described(t)
	var times atomic.Int32
	listen(t, p, func(conn *os.File) {
		times.Add(1)
		answers(t, nil, []string{"what?"})(conn)
	})
	if _, conn, err := Ask(p, &SuperviseRequest{Do: AskStart}); err == nil || conn != nil || times.Load() != 1 {
		t.Errorf("asked %d times: %v", times.Load(), err)
	}
}

func TestWhatTheFilesOfAnAttachmentAre(t *testing.T) {
	stream, in, out, stderr := new(os.File), new(os.File), new(os.File), new(os.File)
	for _, test := range []struct {
		a     *Attachment
		want  []*os.File
		input bool
	}{
		{nil, nil, false},
		{&Attachment{Stream: stream}, []*os.File{stream}, true},
		{&Attachment{Out: out, Err: stderr}, []*os.File{out, stderr}, false},
		{&Attachment{In: in, Out: out, Err: stderr}, []*os.File{in, out, stderr}, true},
	} {
		if files, input := test.a.Files(); !slices.Equal(files, test.want) || input != test.input {
			t.Errorf("%+v: %v, %v", test.a, files, input)
		}
	}
}

// container is one of the pod's, in this state.
func container(t *testing.T, p *pod.Pod, name string, state *pod.ContainerState) *pod.Container {
	t.Helper()
	c := &pod.Container{Format: pod.ContainerFormat, ID: store.NewID(), Name: name, Pod: p.ID, In: p}
	if err := errors.Join(store.Save(c), store.SaveState(c, state)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhyNobodyCanAttach(t *testing.T) {
	self, err := proc.IdentifySelf()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p := described(t)
	ended := container(t, p, "app", &pod.ContainerState{Status: pod.Ended})
	foreground := container(t, p, "front", &pod.ContainerState{Status: pod.Up, Process: self, Watcher: self})
	look := func(who string) {
		_, err := Attach(ended, &Attachment{Out: null, Err: null})
		if !errors.Is(err, fault.ErrExited) || !slices.Equal(fault.Hints(err), []string{"podsh start " + ended.Title()}) {
			t.Errorf("%s, what has ended: %v %q", who, err, fault.Hints(err))
		}
		_, err = Attach(foreground, &Attachment{Out: null, Err: null})
		if err == nil || errors.Is(err, fault.ErrExited) || !strings.Contains(err.Error(), "in the foreground of another podsh") || len(fault.Hints(err)) != 1 {
			t.Errorf("%s, what runs in the foreground: %v %q", who, err, fault.Hints(err))
		}
	}
	look("without a supervisor")
	var answer atomic.Value
	answer.Store(answers(t, nil, &SuperviseAnswer{Ended: true}))
	listen(t, p, func(conn *os.File) { answer.Load().(func(*os.File))(conn) })
	look("with one that does not have it")
	answer.Store(func(*os.File) {})
	look("with one that goes")
	answer.Store(answers(t, nil, &SuperviseAnswer{Error: "no room"}))
	if _, err := Attach(foreground, &Attachment{Out: null, Err: null}); err == nil || err.Error() != "no room" {
		t.Errorf("with one that refuses: %v", err)
	}
}

func TestWhoIsAttachedIsToldOfTheEnd(t *testing.T) {
	ours, theirs, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	s := &Session{Conn: ours, Container: "0123456789ab"}
	defer s.Close()
	came := make(chan SuperviseRequest, 1)
	var answering sync.WaitGroup
	answering.Go(func() { answers(t, came, &SuperviseAnswer{})(theirs) })
	if err := s.Resize(25, 80); err != nil {
		t.Error(err)
	}
	if got, want := <-came, (SuperviseRequest{Do: AskResize, Container: s.Container, Rows: 25, Columns: 80}); got != want {
		t.Errorf("resize: %+v", got)
	}
	answering.Wait()
	answering.Go(func() { answers(t, came, &SuperviseAnswer{ExitCode: 9})(theirs) })
	if status, err := s.Wait(); status != 9 || err != nil {
		t.Errorf("wait: %d, %v", status, err)
	}
	if got, want := <-came, (SuperviseRequest{Do: AskWait, Container: s.Container}); got != want {
		t.Errorf("wait: %+v", got)
	}
	answering.Wait()
	theirs.Close()
	if _, err := s.Wait(); err == nil || !strings.HasPrefix(err.Error(), "the supervisor went away") || len(fault.Hints(err)) != 1 {
		t.Errorf("wait: %v %q", err, fault.Hints(err))
	}
}

func TestASupervisorGetsNoMoreOfTheEnvironmentThanWhereThingsLie(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", "/data")
	t.Setenv("CNI_PATH", "/a=b")
	t.Setenv("SECRET", "PATH=/x")
	t.Setenv("PODSH_ROOT", filepath.Join("/", "store"))
	env := SupervisorEnv()
	for v, want := range map[string]bool{"XDG_DATA_HOME=/data": true, "CNI_PATH=/a=b": true, "SECRET=PATH=/x": false, "PODSH_ROOT=/store": false} {
		if slices.Contains(env, v) != want {
			t.Errorf("%s: %v, want %v", v, !want, want)
		}
	}
}
