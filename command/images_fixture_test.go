package command

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// imageVerbs are what sessions of images can do besides.
var imageVerbs = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"images":   verbImages,
	"made":     verbMade,
	"registry": verbRegistry,
	"cut":      verbCut,
}

// testImages is the layout of scripts/images: $PODSH_TEST_IMAGES, or the one in the cache of whoever runs this,
// which is made now if need be, as root. It takes a minute or two.
var testImages = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("PODSH_TEST_IMAGES"); dir != "" {
		if !exists(filepath.Join(dir, "index.json")) {
			return "", fmt.Errorf("$PODSH_TEST_IMAGES has no images: %s", dir)
		}
		return filepath.Abs(dir)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("scripts/images").CombinedOutput(); err != nil {
		return "", fmt.Errorf("scripts/images: %w\n%s", err, out)
	}
	return filepath.Join(cache, "podsh-test-images"), nil
})

// needImages is testImages for a test, which is skipped where they can't be made.
func needImages(t *testing.T) string {
	t.Helper()
	dir, err := testImages()
	if err != nil {
		strict{T: t}.Skip(err)
	}
	return dir
}

// images: the variable IMAGES becomes the path of an OCI layout with the tags busybox, debian, nginx, redis,
// postgres, python, and many (an index of platforms).
func verbImages(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: images")
	}
	dir, err := testImages()
	ts.Check(err)
	ts.Setenv("IMAGES", dir)
}

// cut NAME REGISTRY BYTES [TIMES]: a bad line to the registry, at 127.0.0.1:PORT, which the variable NAME becomes.
// A connection on which more than BYTES of answers come ends after BYTES, but only the first time, or so many times.
func verbCut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 4 {
		ts.Fatalf("usage: cut NAME REGISTRY BYTES [TIMES]")
	}
	after, err := strconv.ParseInt(args[2], 10, 64)
	ts.Check(err)
	times := 1
	if len(args) > 3 {
		times, err = strconv.Atoi(args[3])
		ts.Check(err)
	}
	to := ts.Getenv(args[1])
	if to == "" {
		ts.Fatalf("no registry %s was started", args[1])
	}
	line, err := startLine(to, after, times)
	ts.Check(err)
	ts.Defer(line.end)
	ts.Setenv(args[0], line.listener.Addr().String())
}

// line is a proxy that loses connections.
type line struct {
	listener net.Listener
	to       string
	after    int64
	times    atomic.Int64 // still to come
	workers  sync.WaitGroup
	mu       sync.Mutex
	closed   bool
	open     []net.Conn
}

func startLine(to string, after int64, times int) (*line, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &line{listener: listener, to: to, after: after}
	l.times.Store(int64(times))
	l.workers.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // closed
			}
			l.workers.Go(func() { l.serve(client) })
		}
	})
	return l, nil
}

func (l *line) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", l.to)
	if err != nil {
		return // what the client sees of a registry that is gone
	}
	defer server.Close()
	if !l.keep(client, server) {
		return
	}
	l.workers.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.(*net.TCPConn).CloseWrite()
	})
	if n, err := io.CopyN(client, server, l.after); err != nil || n < l.after {
		return
	}
	// Whether there is more is known when it comes: what is cut is no whole answer.
	more := make([]byte, 1)
	if _, err := io.ReadFull(server, more); err != nil || l.times.Add(-1) >= 0 {
		return
	}
	if _, err := client.Write(more); err == nil {
		_, _ = io.Copy(client, server)
	}
}

// keep remembers connections for end; false after it.
func (l *line) keep(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = append(l.open, conns...)
	return !l.closed
}

func (l *line) end() {
	l.listener.Close()
	l.mu.Lock()
	l.closed = true
	for _, conn := range l.open {
		conn.Close()
	}
	l.mu.Unlock()
	l.workers.Wait()
}

// TestRegistryFixture is a session of these verbs alone, with skopeo as the client.
func TestRegistryFixture(t *testing.T) {
	needImages(t)
	for _, program := range []string{"skopeo", "docker-registry", "perl"} {
		if _, err := exec.LookPath(program); err != nil {
			strict{T: t}.Skip(err)
		}
	}
	file := filepath.Join(t.TempDir(), "fixture.txtar")
	if err := os.WriteFile(file, []byte(fixtureSession), 0o644); err != nil {
		t.Fatal(err)
	}
	testscript.RunT(strict{T: t}, testscript.Params{Files: []string{file}, Cmds: imageVerbs, Setup: func(env *testscript.Env) error {
		env.Setenv("HOME", env.WorkDir)
		env.Setenv("REGISTRY_AUTH_FILE", filepath.Join(env.WorkDir, ".auth.json")) // there is none
		return nil
	}})
}

const fixtureSession = `
images
exists $IMAGES/index.json
registry start PLAIN
registry push PLAIN busybox some/busybox:1
registry push PLAIN many many:1
exec skopeo inspect --tls-verify=false --config docker://$PLAIN/some/busybox:1
stdout '"sh"'
exec skopeo inspect --tls-verify=false --raw docker://$PLAIN/many:1
stdout '"variant": "v7"'
exec skopeo --override-arch arm --override-variant v7 inspect --tls-verify=false --config docker://$PLAIN/many:1
stdout '"architecture": "arm"'

# Over a bad line the first two pulls fail, and what is pushed over it gets through.
cut WEAK PLAIN 300000 2
! exec skopeo --insecure-policy copy --src-tls-verify=false docker://$WEAK/some/busybox:1 dir:first
! exec skopeo --insecure-policy copy --src-tls-verify=false docker://$WEAK/some/busybox:1 dir:second
exec skopeo --insecure-policy copy --src-tls-verify=false docker://$WEAK/some/busybox:1 dir:third
exec skopeo --insecure-policy copy --dest-tls-verify=false dir:third docker://$WEAK/another:1
exec skopeo inspect --tls-verify=false --config docker://$PLAIN/another:1

# With tls and a password only those who trust it, and know it, are served.
registry start SAFE tls auth ann:secret
registry push SAFE busybox busybox:1
mkdir certificates
cp SAFE.crt certificates/ca.crt
exec skopeo inspect --cert-dir certificates --creds ann:secret --config docker://$SAFE/busybox:1
! exec skopeo inspect --cert-dir certificates --creds ann:wrong --config docker://$SAFE/busybox:1
stderr unauthorized
! exec skopeo inspect --creds ann:secret --config docker://$SAFE/busybox:1
stderr x509

# It hangs, goes on, is gone, and comes back with what it had.
registry freeze PLAIN
! exec timeout 0.5 skopeo inspect --tls-verify=false --config docker://$PLAIN/another:1
registry thaw PLAIN
exec skopeo inspect --tls-verify=false --config docker://$PLAIN/another:1
registry stop PLAIN
! exec skopeo inspect --tls-verify=false --config docker://$PLAIN/another:1
stderr refused
registry start PLAIN
exec skopeo inspect --tls-verify=false --config docker://$PLAIN/another:1
`
