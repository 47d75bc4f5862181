package helper

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
)

// TestMain is the program where a test starts it as that.
func TestMain(m *testing.M) {
	switch os.Args[0] {
	case image.UnpackName:
		if err := beAlone(); err != nil {
			panic(err)
		}
		os.Exit(Main(os.Args))
	case "podsh@image":
		os.Exit(Main(os.Args))
	}
	os.Exit(m.Run())
}

// beAlone does what a plan of podsh's does before the program starts: the folder where it stands is its root.
func beAlone() error {
	return errors.Join(unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH), os.Chdir("/"))
}

// program is the program, and the socket to it.
type program struct {
	*exec.Cmd
	conn *os.File
	in   *bufio.Scanner
}

func start(t *testing.T, stdin, stdout *os.File) *program {
	t.Helper()
	p := prepare(t, stdin, stdout)
	if err := p.begin(); err != nil {
		t.Fatal(err)
	}
	return p
}

func prepare(t *testing.T, stdin, stdout *os.File) *program {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	p := &program{Cmd: &exec.Cmd{Path: "/proc/self/exe", Args: []string{"podsh@image"}, Env: os.Environ(), Stderr: os.Stderr, ExtraFiles: []*os.File{theirs}}, conn: ours}
	if stdin != nil {
		p.Stdin = stdin
	}
	if stdout != nil {
		p.Stdout = stdout
	}
	p.in = bufio.NewScanner(ours)
	p.in.Buffer(nil, 1<<20)
	t.Cleanup(func() {
		if p.Process != nil {
			_ = p.Process.Kill()
		}
		ours.Close()
	})
	return p
}

func (p *program) begin() error {
	defer p.ExtraFiles[0].Close()
	return p.Start()
}

func (p *program) ask(t *testing.T, request any) {
	t.Helper()
	if err := json.NewEncoder(p.conn).Encode(request); err != nil {
		t.Fatal(err)
	}
}

// last is the last event.
func (p *program) last(t *testing.T) image.Event {
	t.Helper()
	var event image.Event
	for p.in.Scan() {
		event = image.Event{}
		if err := json.Unmarshal(p.in.Bytes(), &event); err != nil {
			t.Fatal(err)
		}
	}
	return event
}

// ends waits for the end of the program, a while.
func (p *program) ends(t *testing.T, status int) {
	t.Helper()
	late := time.AfterFunc(10*time.Second, func() { _ = p.Process.Kill() })
	defer late.Stop()
	_ = p.Wait()
	if got := p.ProcessState.ExitCode(); got != status {
		t.Errorf("it ended with %d, not %d: %v", got, status, p.ProcessState)
	}
}

// TestStandard: an archive goes from standard output to standard input.
func TestStandard(t *testing.T) {
	dir := t.TempDir()
	root, first, second := filepath.Join(dir, "root"), filepath.Join(dir, "first"), filepath.Join(dir, "second")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "hello"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	archive, err := exec.Command("tar", "c", "-C", root, ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, r, nil)
	p.ask(t, image.Request{Do: image.Import, Store: first, File: "-", Names: []string{"docker.io/library/web:1"}})
	if _, err := w.Write(archive); err != nil {
		t.Fatal(err)
	}
	w.Close()
	r.Close()
	made := p.last(t)
	p.ends(t, 0)
	if !made.Finished || len(made.Images) != 1 || made.Images[0].Names[0] != "docker.io/library/web:1" {
		t.Fatalf("%+v", made)
	}

	if r, w, err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	save, load := start(t, nil, w), start(t, r, nil)
	r.Close()
	w.Close()
	save.ask(t, image.Request{Do: image.Save, Store: first, Images: []string{"web:1"}, Format: "docker-archive", File: "-"})
	load.ask(t, image.Request{Do: image.Pull, Store: second, Source: "docker-archive:-"})
	if event := save.last(t); !event.Finished {
		t.Errorf("save: %+v", event)
	}
	event := load.last(t)
	if !event.Finished || len(event.Images) != 1 || event.Images[0].Digest != made.Images[0].Digest {
		t.Errorf("load: %+v", event)
	}
	save.ends(t, 0)
	load.ends(t, 0)
}

func TestErrors(t *testing.T) {
	store := filepath.Join(t.TempDir(), "store")
	for _, c := range []struct {
		request       any
		message, hint string
	}{
		{image.Request{Do: "dance"}, `unknown request "dance"`, ""},
		{"hello", "malformed request", ""},
		{image.Request{Do: image.Pull, Store: store, Source: "Web"}, `malformed image name "Web"`, "[HOST[:PORT]/]NAME"},
		{image.Request{Do: image.Save, Store: store, Images: []string{"web"}, Format: "oci", File: store + "-out"}, `no image "web"`, "podsh image pull web"},
		{image.Request{Do: image.Import, Store: store, File: "/nowhere"}, `no file "/nowhere"`, "is the path right?"},
		{image.Request{Do: image.Pull, Store: "/dev/null/x", Source: "web"}, "store of images", "XDG_DATA_HOME"},
	} {
		p := start(t, nil, nil)
		p.ask(t, c.request)
		event := p.last(t)
		if !strings.Contains(event.Error, c.message) || !strings.Contains(event.Hint, c.hint) {
			t.Errorf("%+v: %q, hint %q", c.request, event.Error, event.Hint)
		}
		_ = p.Wait()
	}
	p := start(t, nil, nil)
	p.conn.Close() // podsh is gone before it asks
	p.ends(t, 2)
}

// TestGivenUp: when podsh goes, or ends it, the program goes as well.
func TestGivenUp(t *testing.T) {
	for name, end := range map[string]func(p *program){
		"podsh is gone": func(p *program) { p.conn.Close() },
		"SIGTERM":       func(p *program) { _ = p.Process.Signal(unix.SIGTERM) },
		"SIGINT":        func(p *program) { _ = p.Process.Signal(unix.SIGINT) },
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan struct{}, 10)
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			silent := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				asked <- struct{}{}
				<-r.Context().Done()
			})}
			go func() { _ = silent.Serve(listener) }()
			defer silent.Close()
			p := start(t, nil, nil)
			p.ask(t, image.Request{Do: image.Pull, Store: filepath.Join(t.TempDir(), "store"), Source: listener.Addr().String() + "/web"})
			<-asked
			end(p)
			p.ends(t, 1)
		})
	}
}

// TestClosedPipe: standard output that nobody reads is an error in words.
func TestClosedPipe(t *testing.T) {
	store := filepath.Join(t.TempDir(), "store")
	root := filepath.Join(t.TempDir(), "root.tar")
	if out, err := exec.Command("tar", "cf", root, "-C", "/etc", "passwd").CombinedOutput(); err != nil {
		t.Fatal(string(out), err)
	}
	p := start(t, nil, nil)
	p.ask(t, image.Request{Do: image.Import, Store: store, File: root, Names: []string{"docker.io/library/web:1"}})
	if event := p.last(t); !event.Finished {
		t.Fatalf("%+v", event)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	p = start(t, nil, w)
	w.Close()
	p.ask(t, image.Request{Do: image.Save, Store: store, Images: []string{"web:1"}, Format: "oci-archive", File: "-"})
	if event := p.last(t); event.Error != "standard output: broken pipe" {
		t.Errorf("%+v", event)
	}
	p.ends(t, 1)
}

// TestUnpack: the program unpacks into what is its root.
func TestUnpack(t *testing.T) {
	store, dir := filepath.Join(t.TempDir(), "store"), t.TempDir()
	tar := filepath.Join(dir, "layer.tar")
	if out, err := exec.Command("tar", "cf", tar, "-C", "/etc", "passwd").CombinedOutput(); err != nil {
		t.Fatal(string(out), err)
	}
	p := start(t, nil, nil)
	p.ask(t, image.Request{Do: image.Import, Store: store, File: tar})
	made := p.last(t)
	if !made.Finished {
		t.Fatalf("%+v", made)
	}
	layer := made.Images[0].Layers[0]
	blob, err := os.Open(filepath.Join(store, "blobs", "sha256", strings.TrimPrefix(layer.Digest, "sha256:")))
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	const become = `mount --bind "$1" "$1" && cd "$1" && exec -a podsh@unpack "$2"`
	p = prepare(t, blob, nil)
	p.Path, p.Args = "/bin/bash", []string{"bash", "-c", become, "bash", root, os.Args[0]}
	p.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}}
	if err := p.begin(); err != nil {
		if os.Getenv("PODSH_MUST_WORK") == "1" {
			t.Fatal(err)
		}
		t.Skip("no user namespaces: ", err)
	}
	p.ask(t, image.Request{Do: image.Unpack, Layer: &layer, Squash: true})
	if event := p.last(t); !event.Finished {
		t.Errorf("%+v", event)
	}
	p.ends(t, 0)
	want, _ := os.ReadFile("/etc/passwd")
	if got, err := os.ReadFile(filepath.Join(root, "passwd")); err != nil || string(got) != string(want) {
		t.Error("not unpacked: ", err)
	}
}

// TestNotAlone: where the program is not alone with a folder, nothing is unpacked: it would go into the root that is there.
func TestNotAlone(t *testing.T) {
	p := start(t, nil, nil)
	p.ask(t, image.Request{Do: image.Unpack, Layer: &image.Layer{}})
	if event := p.last(t); !strings.Contains(event.Error, "alone with a folder") {
		t.Errorf("%+v", event)
	}
	p.ends(t, 1)
}
