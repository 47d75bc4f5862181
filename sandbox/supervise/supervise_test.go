package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox"
	"github.com/podsh/podsh/sandbox/ask"
	"github.com/podsh/podsh/sandbox/container"
	"github.com/podsh/podsh/sandbox/crilog"
	"github.com/podsh/podsh/sandbox/disk"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
)

// TestMain is podsh where it is started as one of podsh's own processes: the supervisor of a test's pod is this program.
func TestMain(m *testing.M) {
	switch os.Args[0] {
	case ask.SuperviseName:
		os.Exit(Supervise(os.Args))
	case disk.RemoveName:
		os.Exit(disk.RemoveMain(os.Args))
	}
	os.Exit(m.Run())
}

// tooLong is how long nothing here takes.
const tooLong = 10 * time.Second

// never is a grace that no test waits for.
const never = time.Hour

// newPod makes a pod in a store of its own. It is removed with what runs in it.
func newPod(t *testing.T) *pod.Pod {
	t.Helper()
	t.Setenv("PODSH_ROOT", filepath.Join(t.TempDir(), "podsh"))
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	s, err := store.OpenStore()
	if err != nil {
		t.Fatal(err)
	}
	proposal, err := sandbox.Propose(&spec.Spec{Name: "web", Rootfs: rootfs.Source{Kind: "host"}}, s, sandbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer proposal.Close()
	p, _, err := proposal.Create()
	if err != nil {
		t.Fatalf("%v %q", err, fault.Hints(err))
	}
	t.Cleanup(func() {
		if err := sandbox.Remove(p, true); err != nil {
			t.Error(err)
		}
	})
	return p
}

// shell describes a container that runs a script, and more that changes its spec.
func shell(t *testing.T, p *pod.Pod, script string, more ...func(*spec.ContainerSpec)) *pod.Container {
	t.Helper()
	wanted := &spec.ContainerSpec{Rootfs: rootfs.Source{Kind: "host"}, Command: []string{"sh", "-c", script}, Detached: true}
	for _, change := range more {
		change(wanted)
	}
	c, err := container.NewContainer(p, wanted, nil, nil, false)
	if err != nil {
		t.Fatalf("%v %q", err, fault.Hints(err))
	}
	return c
}

func stdin(s *spec.ContainerSpec)  { s.Stdin = true }
func always(s *spec.ContainerSpec) { s.Restart.Policy = "always" }

// client is someone who is attached.
type client struct {
	*ask.Session
	out, err *os.File // to be read
	in       *os.File // to be written to
}

// attachment makes pipes, and gives the other ends away.
func attachment(t *testing.T, input bool) (*client, *ask.Attachment) {
	t.Helper()
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		_ = r.SetReadDeadline(time.Now().Add(tooLong))
		return r, w
	}
	us, them := &client{}, &ask.Attachment{}
	us.out, them.Out = pipe()
	us.err, them.Err = pipe()
	if input {
		them.In, us.in = pipe()
	}
	return us, them
}

// attach attaches a client; how is ask.Attach or sandbox.Start.
func attach(t *testing.T, c *pod.Container, how func(*pod.Container, *ask.Attachment) (*ask.Session, error)) *client {
	t.Helper()
	us, them := attachment(t, c.Spec.Stdin)
	session, err := how(c, them)
	if err != nil {
		t.Fatalf("%v %q", err, fault.Hints(err))
	}
	files, _ := them.Files()
	control.Close(files) // the supervisor has copies
	us.Session = session
	t.Cleanup(session.Close)
	return us
}

func start(t *testing.T, c *pod.Container) {
	t.Helper()
	session, err := sandbox.Start(c, nil)
	if err != nil {
		t.Fatalf("%v %q", err, fault.Hints(err))
	}
	session.Close()
}

// say types to the container.
func (c *client) say(t *testing.T, text string) {
	t.Helper()
	if _, err := c.in.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// hears reads as much as is wanted, and compares.
func hears(t *testing.T, from *os.File, want string) {
	t.Helper()
	text := make([]byte, len(want))
	if n, err := io.ReadFull(from, text); err != nil || string(text) != want {
		t.Fatalf("heard %q, want %q: %v", text[:n], want, err)
	}
}

// rest reads to the end.
func rest(t *testing.T, from *os.File) string {
	t.Helper()
	text, err := io.ReadAll(from)
	if err != nil {
		t.Fatalf("after %d bytes: %v", len(text), err)
	}
	return string(text)
}

func logged(t *testing.T, c *pod.Container) (out, stderr string) {
	t.Helper()
	var o, e bytes.Buffer
	if err := crilog.Read(context.Background(), store.LogPath(c), crilog.ReadOptions{Tail: -1}, &o, &e); err != nil {
		t.Fatal(err)
	}
	return o.String(), e.String()
}

func stateOf(t *testing.T, c *pod.Container) *pod.ContainerState {
	t.Helper()
	state, err := store.Written(c)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// in waits for what is to end by itself.
func in[T any](t *testing.T, what string, do func() (T, error)) (T, error) {
	t.Helper()
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() { value, err := do(); done <- result{value, err} }()
	select {
	case r := <-done:
		return r.value, r.err
	case <-time.After(tooLong):
		t.Fatalf("%s: not in %v", what, tooLong)
		panic("not reached")
	}
}

// eventually looks again and again: what is waited for has no descriptor to wait on.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(tooLong); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", tooLong, what)
		}
	}
}

func dial(t *testing.T, p *pod.Pod) *os.File {
	t.Helper()
	conn, err := ask.EnsureSupervisor(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// talk is one request over a connection of its own.
func talk(t *testing.T, conn *os.File, request *ask.SuperviseRequest, files ...*os.File) *ask.SuperviseAnswer {
	t.Helper()
	answer, err := in(t, request.Do, func() (*ask.SuperviseAnswer, error) { return ask.TalkTo(conn, request, files...) })
	if err != nil {
		t.Fatalf("%s: %v", request.Do, err)
	}
	return answer
}

func TestWhoStartsIsAttachedBeforeAnythingIsSaid(t *testing.T) {
	c := shell(t, newPod(t), "echo one; echo two >&2; read line; echo three $line; exit 3", stdin)
	us := attach(t, c, sandbox.Start)
	hears(t, us.out, "one\n")
	hears(t, us.err, "two\n")
	if state := stateOf(t, c); state.Status != pod.Up || !state.Process.Alive() || !state.Watcher.Alive() {
		t.Errorf("while it runs: %+v", state)
	}
	late := attach(t, c, ask.Attach)
	us.say(t, "words\n")
	if status, err := in(t, "wait", us.Wait); status != 3 || err != nil {
		t.Errorf("it ended with %d, %v", status, err)
	}
	if text := rest(t, us.out); text != "three words\n" {
		t.Errorf("heard at the end: %q", text)
	}
	if text := rest(t, late.out); text != "three words\n" {
		t.Errorf("who came later heard %q", text)
	}
	if status, err := late.Wait(); status != 3 || err != nil {
		t.Errorf("who came later was told %d, %v", status, err)
	}
	if out, stderr := logged(t, c); out != "one\nthree words\n" || stderr != "two\n" {
		t.Errorf("log: %q, %q", out, stderr)
	}
	if state := stateOf(t, c); state.Status != pod.Ended || state.ExitCode != 3 || state.Reason != "" {
		t.Errorf("when it has ended: %+v", state)
	}
	_, err := ask.Attach(c, &ask.Attachment{Out: os.Stdout, Err: os.Stderr})
	if hints := fault.Hints(err); !errors.Is(err, fault.ErrExited) || len(hints) != 1 || !strings.HasPrefix(hints[0], "podsh start") {
		t.Errorf("attach to what has ended: %v %q", err, hints)
	}
}

func TestWhoWasAttachedToWhatIsRemovedIsToldHowItEnded(t *testing.T) {
	c := shell(t, newPod(t), "read line; exit 5", stdin, func(s *spec.ContainerSpec) { s.Remove = true })
	us := attach(t, c, sandbox.Start)
	us.say(t, "\n")
	eventually(t, "it to be removed", func() bool { return !files.Exists(store.PathOf(c, "")) })
	if status, err := in(t, "wait", us.Wait); status != 5 || err != nil {
		t.Errorf("%d, %v", status, err)
	}
}

func TestSeveralAreAttachedAtOnce(t *testing.T) {
	c := shell(t, newPod(t), `while read line; do echo "$line"; echo "! $line" >&2; done`, stdin)
	start(t, c)
	one, two := attach(t, c, ask.Attach), attach(t, c, ask.Attach)
	one.say(t, "from one\n")
	for _, each := range []*client{one, two} {
		hears(t, each.out, "from one\n")
		hears(t, each.err, "! from one\n")
	}
	two.say(t, "from two\n")
	for _, each := range []*client{one, two} {
		hears(t, each.out, "from two\n")
		hears(t, each.err, "! from two\n")
	}
	one.Close()
	if text := rest(t, one.out); text != "" { // its descriptors are let go
		t.Errorf("who went away still heard %q", text)
	}
	two.say(t, "alone\n")
	hears(t, two.out, "alone\n")
	if state := stateOf(t, c); state.Status != pod.Up {
		t.Errorf("when one has gone: %+v", state)
	}
	stubborn, err := in(t, "stop", func() (bool, error) {
		grace := never
		return sandbox.StopContainer(c, unix.SIGTERM, &grace)
	})
	if stubborn || err != nil {
		t.Errorf("stop: %v, %v", stubborn, err)
	}
	if status, err := two.Wait(); status != 128+int(unix.SIGTERM) || err != nil {
		t.Errorf("who is attached is told %d, %v", status, err)
	}
}

// much is more than there is room for between a container and a client: two pipes, and what the supervisor keeps for it.
const much = 4 << 20

const line = "0123456789abcde\n"

func TestWhoDoesNotReadHoldsUpNobodyElse(t *testing.T) {
	p := newPod(t)
	c := shell(t, p, fmt.Sprintf("yes 0123456789abcde | head -c %d; read line; echo after", much), stdin)
	us, them := attachment(t, true)
	lazy, err := sandbox.Start(c, them)
	if err != nil {
		t.Fatal(err)
	}
	us.Session = lazy
	other := shell(t, p, "echo here; read line; echo $line", stdin)
	theirs := attach(t, other, sandbox.Start) // the supervisor still does all that it is asked for
	hears(t, theirs.out, "here\n")
	theirs.say(t, "there\n")
	if status, err := in(t, "wait for another container", theirs.Wait); status != 0 || err != nil || rest(t, theirs.out) != "there\n" {
		t.Errorf("another container: %d, %v", status, err)
	}
	busy := attach(t, c, ask.Attach)
	last, looks := "", 0
	eventually(t, "it to be in the way", func() bool {
		out, _ := logged(t, c)
		if looks++; out != last || room(t, us.out) > 0 {
			last, looks = out, 0
		}
		return looks == 20
	})
	if len(last) >= much {
		t.Fatal("it is not in the way at all")
	}
	lazy.Close() // it never read
	if _, err := io.Copy(io.Discard, io.LimitReader(busy.out, 1)); err != nil {
		t.Fatal(err)
	}
	busy.say(t, "\n")
	if status, err := in(t, "wait", func() (int, error) {
		go func() { _, _ = io.Copy(io.Discard, busy.out) }()
		return busy.Wait()
	}); status != 0 || err != nil {
		t.Errorf("when it has gone: %d, %v", status, err)
	}
	if out, _ := logged(t, c); out != strings.Repeat(line, much/len(line))+"after\n" {
		t.Errorf("%d bytes are in the log", len(out))
	}
}

// TestWhoDoesNotReadIsNotWaitedForAtTheEnd: a container that ends while somebody who is attached has not read for long still
// has all that it wrote in its log, and with those who do read. Here it never waits for room, and counts.
func TestWhoDoesNotReadIsNotWaitedForAtTheEnd(t *testing.T) {
	shared := t.TempDir()
	if err := os.WriteFile(filepath.Join(shared, "lines"), []byte(strings.Repeat(line, 1<<16)), 0o644); err != nil {
		t.Fatal(err)
	}
	script := "while read line; do dd if=/shared/lines bs=4096 oflag=nonblock 2>/shared/new; mv /shared/new /shared/said; done"
	c := shell(t, newPod(t), script, stdin, func(s *spec.ContainerSpec) {
		s.Volumes = []rootfs.Volume{{Source: shared, Destination: "/shared"}}
	})
	busy, lazy := attach(t, c, sandbox.Start), attach(t, c, ask.Attach)
	var heard []byte
	var reading sync.WaitGroup
	reading.Go(func() { heard, _ = io.ReadAll(busy.out) })
	written := 0
	for full := 0; full < 20; {
		n := round(t, busy, filepath.Join(shared, "said"))
		if written += n; n > 0 {
			full = 0
		} else if room(t, lazy.out) == 0 {
			full++
		}
	}
	if stubborn, err := in(t, "stop", func() (bool, error) {
		grace := never
		return sandbox.StopContainer(c, unix.SIGKILL, &grace)
	}); stubborn || err != nil {
		t.Errorf("stop: %v, %v", stubborn, err)
	}
	if status, err := in(t, "wait", busy.Wait); status != 128+int(unix.SIGKILL) || err != nil {
		t.Errorf("who reads is told %d, %v", status, err)
	}
	want := strings.Repeat(line, written/len(line))
	if reading.Wait(); string(heard) != want {
		t.Errorf("of %d bytes %d were heard", written, len(heard))
	}
	if out, _ := logged(t, c); out != want {
		t.Errorf("of %d bytes %d are in the log", written, len(out))
	}
	if status, err := in(t, "wait", lazy.Wait); status != 128+int(unix.SIGKILL) || err != nil {
		t.Errorf("who does not read is told %d, %v", status, err)
	}
}

// round has the container write what there is room for, and returns how much that was.
func round(t *testing.T, c *client, said string) (written int) {
	t.Helper()
	c.say(t, "\n")
	eventually(t, "a round", func() bool { return files.Exists(said) })
	text, err := os.ReadFile(said)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(text), "\n") { // such as: 8192 bytes (8.2 kB, 8.0 KiB) copied
		if n, err := fmt.Sscanf(line, "%d bytes", &written); n == 1 && err == nil {
			break
		}
	}
	if err := os.Remove(said); err != nil {
		t.Fatal(err)
	}
	return written
}

// room is how much a pipe still takes.
func room(t *testing.T, pipe *os.File) int {
	t.Helper()
	size, err := unix.FcntlInt(pipe.Fd(), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		t.Fatal(err)
	}
	holds, err := unix.IoctlGetInt(int(pipe.Fd()), unix.TIOCINQ)
	if err != nil {
		t.Fatal(err)
	}
	return size - holds
}

func TestStopOfWhatWaitsForItsRestart(t *testing.T) {
	c := shell(t, newPod(t), "echo again; exit 3", always)
	us := attach(t, c, sandbox.Start)
	eventually(t, "a restart that is to be waited for", func() bool {
		state := stateOf(t, c)
		return state.Status == pod.Restarting && state.Restarts == 1 && state.RestartAt.After(time.Now())
	})
	state, err := store.StateOf(c)
	if err != nil || state.Status != pod.Restarting {
		t.Errorf("between two runs: %+v, %v", state, err)
	}
	stubborn, err := in(t, "stop", func() (bool, error) {
		grace := never
		return sandbox.StopContainer(c, 0, &grace)
	})
	if stubborn || err != nil {
		t.Errorf("stop: %v, %v", stubborn, err)
	}
	if state := stateOf(t, c); state.Status != pod.Ended || !state.Stopped || state.ExitCode != 3 {
		t.Errorf("when it was stopped: %+v", state)
	}
	if status, err := in(t, "wait", us.Wait); status != 3 || err != nil {
		t.Errorf("who was attached is told %d, %v", status, err)
	}
	if text := rest(t, us.out); text != "again\nagain\n" {
		t.Errorf("of both runs was heard %q", text)
	}
	us.Close()
	untilAlone(t, c.In)
	if problems := sandbox.RecoverContainers(c.In); len(problems) > 0 || stateOf(t, c).Status != pod.Ended {
		t.Errorf("it does not stay stopped: %v", problems)
	}
}

// untilAlone waits until the pod's supervisor has gone because there is nothing to do.
func untilAlone(t *testing.T, p *pod.Pod) {
	t.Helper()
	eventually(t, "the supervisor to go", func() bool {
		return !files.Exists(store.StoreOf(p).Below("pods", p.ID, store.SupervisorName))
	})
}

func TestASupervisorGoesWithItsLastContainerAndAnotherOneComes(t *testing.T) {
	c := shell(t, newPod(t), "echo run")
	var watchers []proc.ID
	for range 2 {
		us := attach(t, c, sandbox.Start)
		if status, err := in(t, "wait", us.Wait); status != 0 || err != nil {
			t.Fatal(status, err)
		}
		watchers = append(watchers, stateOf(t, c).Watcher)
		us.Close()
		untilAlone(t, c.In)
	}
	if watchers[0] == watchers[1] {
		t.Errorf("one supervisor ran both: %+v", watchers[0])
	}
	if out, _ := logged(t, c); out != "run\nrun\n" {
		t.Errorf("log: %q", out)
	}
}

func TestOneSupervisorForAllWhoComeAtOnce(t *testing.T) {
	c := shell(t, newPod(t), "read line", stdin)
	const many = 4
	errs := make(chan error, many)
	for range many {
		go func() {
			session, err := sandbox.Start(c, nil)
			if err == nil {
				session.Close()
			}
			errs <- err
		}()
	}
	started := 0
	for range many {
		switch err, _ := in(t, "start", func() (error, error) { return <-errs, nil }); {
		case err == nil:
			started++
		case !strings.HasPrefix(err.Error(), `container "web/sh" is `) || len(fault.Hints(err)) != 1:
			t.Errorf("%v %q", err, fault.Hints(err))
		}
	}
	if started != 1 {
		t.Errorf("%d of %d started it", started, many)
	}
}

func TestTheSupervisorIsKilled(t *testing.T) {
	p := newPod(t)
	once, again := shell(t, p, "echo up; exec sleep 1000"), shell(t, p, "echo up; exec sleep 1000", always)
	us, them := attach(t, once, sandbox.Start), attach(t, again, sandbox.Start)
	hears(t, us.out, "up\n")
	hears(t, them.out, "up\n")
	ended := make(chan error, 1)
	go func() { _, err := us.Wait(); ended <- err }()
	state := stateOf(t, once)
	command, err := state.Process.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer command.Close()
	if err := unix.Kill(state.Watcher.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	err, _ = in(t, "wait", func() (error, error) { return <-ended, nil })
	if err == nil || !strings.Contains(err.Error(), "the supervisor went away") || len(fault.Hints(err)) != 1 {
		t.Errorf("who waits is told: %v %q", err, fault.Hints(err))
	}
	if gone, err := proc.Ended(command, time.Now().Add(tooLong)); !gone || err != nil {
		t.Errorf("its container goes on: %v", err)
	}
	if state, err := store.StateOf(once); err != nil || state.Status != pod.Ended || state.ExitCode != 128+int(unix.SIGKILL) || state.Reason == "" {
		t.Errorf("it is known as %+v, %v", state, err)
	}
	if _, err := ask.Attach(once, &ask.Attachment{Out: os.Stdout, Err: os.Stderr}); !errors.Is(err, fault.ErrExited) {
		t.Errorf("attach: %v", err)
	}
	problems := sandbox.RecoverContainers(p)
	if len(problems) != 2 || !strings.Contains(problems[0].Error(), "what watched over it was killed") || !strings.Contains(problems[1].Error(), "what watched over it was killed") {
		t.Errorf("who looks is told %v", problems)
	}
	eventually(t, "what restarts always to run under another supervisor", func() bool {
		now := stateOf(t, again)
		return now.Status == pod.Up && now.Watcher != state.Watcher && now.Watcher.Alive() && now.Process.Alive()
	})
	if state := stateOf(t, once); state.Status != pod.Ended {
		t.Errorf("what does not restart is %+v", state)
	}
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	p := newPod(t)
	c := shell(t, p, "while read line; do echo $line; done", stdin)
	us := attach(t, c, sandbox.Start)
	watcher := stateOf(t, c).Watcher.PID
	descriptors := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", watcher))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := descriptors()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, packets := range map[string][]string{
		"no JSON":           {"attach"},
		"nested":            {strings.Repeat("[", 100_000)},
		"another type":      {`{"do": ["stop"]}`},
		"too large":         {`{"do": "` + strings.Repeat("x", 1<<17) + `"}`},
		"parts":             {"+" + `{"do": "st`, `{"do": "stop"}`},
		"the end of no one": {".", ".", "+"},
	} {
		conn := dial(t, p)
		for _, packet := range packets {
			if err := unix.Sendmsg(int(conn.Fd()), []byte(packet), unix.UnixRights(int(null.Fd())), nil, unix.MSG_NOSIGNAL); err != nil && !errors.Is(err, unix.EPIPE) {
				t.Errorf("%s: %v", name, err)
			}
		}
		_, err := in(t, name, func() (*ask.SuperviseAnswer, error) {
			answer := &ask.SuperviseAnswer{}
			_, err := control.Receive(conn, answer)
			return answer, err
		})
		if !proc.HungUp(err) {
			t.Errorf("%s: %v, and not the end of the connection", name, err)
		}
		conn.Close()
	}
	conn := dial(t, p)
	for _, test := range []struct {
		request ask.SuperviseRequest
		files   []*os.File
		want    string // "": it has ended
	}{
		{ask.SuperviseRequest{Do: "dance", Container: c.ID}, nil, `a supervisor can't "dance"`},
		{ask.SuperviseRequest{}, []*os.File{null}, ""},
		{ask.SuperviseRequest{Do: ask.AskStop, Container: "0123456789ab", Signal: 9}, []*os.File{null, null}, ""},
		{ask.SuperviseRequest{Do: ask.AskStart, Container: "0123456789ab"}, []*os.File{null}, `no container "0123456789ab"`},
		{ask.SuperviseRequest{Do: ask.AskStart, Container: "../containers/" + c.ID}, []*os.File{null}, "description of container"},
		{ask.SuperviseRequest{Do: ask.AskStart, Container: c.ID}, []*os.File{null, null}, `container "web/sh" is running`},
		{ask.SuperviseRequest{Do: ask.AskAttach, Container: c.ID, Input: true}, nil, "these are not the descriptors"},
		{ask.SuperviseRequest{Do: ask.AskAttach, Container: c.ID}, []*os.File{null, null}, "-"},
		{ask.SuperviseRequest{Do: ask.AskAttach, Container: c.ID}, []*os.File{null, null}, "these are not the descriptors"}, // once is enough
		{ask.SuperviseRequest{Do: ask.AskResize, Container: c.ID, Rows: 7, Columns: 7}, []*os.File{null}, "-"},              // it has no terminal
	} {
		answer := talk(t, conn, &test.request, test.files...)
		ended, said := test.want == "", test.want != "" && test.want != "-"
		if answer.Ended != ended || said != (answer.Error != "") || said && !strings.Contains(answer.Error, test.want) {
			t.Errorf("%+v: %+v", test.request, answer)
		}
	}
	conn.Close()
	eventually(t, "all that came to be let go", func() bool { return descriptors() == before })
	us.say(t, "still here\n")
	hears(t, us.out, "still here\n")
	if state := stateOf(t, c); state.Status != pod.Up || state.Watcher.PID != watcher {
		t.Errorf("after all that: %+v", state)
	}
}

func TestWhatCannotBeStartedIsToldWithItsKind(t *testing.T) {
	p := newPod(t)
	for command, want := range map[string]struct {
		kind   error
		status int
	}{"/no/such/program": {fault.ErrNotFound, 127}, "/etc/passwd": {fault.ErrNotExecutable, 126}} {
		c := shell(t, p, "", func(s *spec.ContainerSpec) { s.Command = []string{command} })
		_, err := sandbox.Start(c, nil)
		if !errors.Is(err, want.kind) {
			t.Errorf("%s: %v", command, err)
		}
		if state := stateOf(t, c); state.Status != pod.Ended || state.ExitCode != want.status || state.Reason == "" {
			t.Errorf("%s: %+v", command, state)
		}
	}
}
