package helper

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
)

// TestGivenUpBlocked: the program goes as well where it waits for a pipe in which nothing happens, and leaves nothing.
func TestGivenUpBlocked(t *testing.T) {
	dir := t.TempDir()
	store, root := filepath.Join(dir, "store"), filepath.Join(dir, "root")
	if err := os.WriteFile(root, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "cf", root+".tar", "-C", dir, "root").CombinedOutput(); err != nil {
		t.Fatal(string(out), err)
	}
	tar, err := os.ReadFile(root + ".tar")
	if err != nil {
		t.Fatal(err)
	}
	// Saved, it is more than the pipe holds.
	p := start(t, nil, nil)
	p.ask(t, image.Request{Do: image.Import, Store: store, File: root + ".tar", Names: []string{"docker.io/library/web:1"}})
	if event := p.last(t); !event.Finished {
		t.Fatalf("%+v", event)
	}
	for name, request := range map[string]image.Request{
		"import":  {Do: image.Import, Store: store, File: "-"},
		"archive": {Do: image.Pull, Store: store, Source: "docker-archive:-"},
		"save":    {Do: image.Save, Store: store, Images: []string{"web:1"}, Format: "docker-archive", File: "-"},
	} {
		for how, end := range map[string]func(*program){
			"podsh is gone": func(p *program) { p.conn.Close() },
			"SIGTERM":       func(p *program) { _ = p.Process.Signal(unix.SIGTERM) },
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				request := request
				if request.Do != image.Save {
					request.Store = filepath.Join(t.TempDir(), "store")
				}
				givenUpBlocked(t, request, tar, end)
			})
		}
	}
}

// givenUpBlocked ends the program when it waits for the other end of its standard input or output.
func givenUpBlocked(t *testing.T, request image.Request, tar []byte, end func(*program)) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var p *program
	if request.Do == image.Save {
		if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
			t.Fatal(err)
		}
		p = start(t, nil, w)
		p.ask(t, request)
		if _, err := r.Read(make([]byte, 1)); err != nil { // it has begun
			t.Fatal(err)
		}
	} else {
		p = start(t, r, nil)
		p.ask(t, request)
		if _, err := w.Write(tar[:len(tar)/2]); err != nil { // more than a pipe holds: it has begun
			t.Fatal(err)
		}
	}
	began := time.Now()
	end(p)
	p.ends(t, 1)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it ended after %s", took)
	}
	left, err := os.ReadDir(filepath.Join(request.Store, "partial"))
	if err != nil || request.Do != image.Save && len(left) > 0 {
		t.Error("left: ", left, err)
	}
}
