package command

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/podsh/podsh/sandbox/store"
)

// Sessions called net_* need other machines: they run in a lab, scripts/lab, which is a host for them all. So
// they take turns.
const labSessions = "net_"

// lab is the folder that scripts/lab names, in a lab.
func lab() string { return os.Getenv("PODSH_LAB") }

// TestSessionsInLab runs the sessions of the pod's network.
func TestSessionsInLab(t *testing.T) {
	if lab() == "" {
		t.Parallel()
		runInLab(t)
		return
	}
	runSessions(t, func(name string) bool { return strings.HasPrefix(name, labSessions) })
}

// runInLab runs the calling test, and all below it that was asked for, once more in a lab.
func runInLab(t *testing.T) {
	t.Helper()
	pattern := "^" + t.Name() + "$"
	if _, below, ok := strings.Cut(flag.Lookup("test.run").Value.String(), "/"); ok {
		pattern += "/" + below
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("scripts/lab", "--", self, "-test.run="+pattern, "-test.v=true", "-test.timeout=5m")
	dir, err := plugins()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "PODSH_BINARY="+podshBinary, "PODSH_CNI_PLUGINS="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	runtime.LockOSThread() // Pdeathsig is the thread's
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	if err != nil || testing.Verbose() {
		os.Stdout.Write(out.Bytes()) // as it is: each session counts
	}
	if err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
		t.Fatalf("in the lab: %v", err)
	}
}

// labVerbs are what sessions in a lab can do besides.
var labVerbs = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"far":    verbFar,
	"nginx":  verbNginx,
	"helper": verbHelper,
	"hub":    verbHub,
}

// far CMD ARG...: on the other machine.
func verbFar(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("far", args...)
	switch {
	case neg && err == nil:
		ts.Fatalf("far %s should not have succeeded", args[0])
	case !neg && err != nil:
		ts.Fatalf("far: %v", err)
	}
}

// nginx POD [ADDRESS]...: a web server in the pod that tells each client its address, and writes it to
// /tmp/access. It listens when this returns.
func verbNginx(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: nginx POD [ADDRESS]...")
	}
	listen := args[1:]
	if len(listen) == 0 {
		listen = []string{"80", "[::]:80"}
	}
	var conf strings.Builder
	fmt.Fprint(&conf, "user root;\nmaster_process off;\npid /tmp/nginx.pid;\nerror_log /tmp/nginx.log;\n")
	fmt.Fprint(&conf, "events { worker_connections 2048; }\nhttp {\nlog_format client '$remote_addr';\naccess_log /tmp/access client;\n")
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&conf, "%s_temp_path /tmp/nginx.%s;\n", kind, kind)
	}
	fmt.Fprint(&conf, "server {\n")
	for _, address := range listen {
		fmt.Fprintf(&conf, "listen %s;\n", address)
	}
	// Of /big more is sent than any buffer on the way holds.
	fmt.Fprint(&conf, "location / { return 200 \"$remote_addr\\n\"; }\nlocation = /big { alias /tmp/big; }\n}\n}\n")
	const start = "cat >/tmp/nginx.conf && head -c 20000000 /dev/zero >/tmp/big && ulimit -n 4096 && exec nginx -e /tmp/nginx.log -c /tmp/nginx.conf"
	cmd := exec.Command(filepath.Join(ts.Getenv("WORK"), ".bin", "podsh"), "join", args[0], "--", "sh", "-c", start)
	cmd.Env = []string{"PODSH_ROOT=" + ts.Getenv("PODSH_ROOT"), "PATH=" + ts.Getenv("PATH")}
	cmd.Stdin = strings.NewReader(conf.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		ts.Fatalf("nginx in pod %s: %v\n%s", args[0], err, out)
	}
}

// helper POD: the variable HELPER becomes the pid of the helper that serves the pod, KEEPER that of its keeper.
func verbHelper(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: helper POD")
	}
	s := &store.Store{Path: ts.Getenv("PODSH_ROOT")}
	pod, err := s.Find(args[0])
	ts.Check(err)
	if pod.Hub != "" {
		pod, err = s.Hub()
		ts.Check(err)
	}
	state, err := store.Net(pod)
	ts.Check(err)
	if state.Helper == nil || state.Keeper == nil {
		ts.Fatalf("pod %s has no helper", args[0])
	}
	ts.Setenv("HELPER", strconv.Itoa(state.Helper.PID))
	ts.Setenv("KEEPER", strconv.Itoa(state.Keeper.PID))
}

// hub: the variable HUB becomes the pid of the hub's holder.
func verbHub(ts *testscript.TestScript, neg bool, args []string) {
	store := &store.Store{Path: ts.Getenv("PODSH_ROOT")}
	hub, err := store.Hub()
	ts.Check(err)
	if neg || len(args) != 0 || hub == nil {
		ts.Fatalf("there is no hub")
	}
	ts.Setenv("HUB", strconv.Itoa(hub.Holder.PID))
}

// plugins returns a folder with the CNI project's own plugins: $PODSH_CNI_PLUGINS, the one beside podsh, or one that
// is built here from the module cache.
var plugins = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("PODSH_CNI_PLUGINS"); dir != "" {
		return dir, nil
	}
	if dir := filepath.Join(filepath.Dir(podshBinary), "cni"); exists(filepath.Join(dir, "bridge")) {
		return dir, nil
	}
	dir := filepath.Join(testDir, "cni")
	args := []string{"build", "-o", dir + "/"}
	for _, plugin := range []string{"main/bridge", "ipam/host-local", "meta/portmap", "meta/firewall"} {
		args = append(args, "github.com/containernetworking/plugins/plugins/"+plugin)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the plugins: %w: %s", err, out)
	}
	return dir, nil
})

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// setUpInLab makes sure that a session leaves the host as it was.
func setUpInLab(env *testscript.Env) error {
	dir, err := plugins()
	if err != nil {
		return err
	}
	env.Setenv("CNI_PATH", dir)
	env.Setenv("LAB", lab())
	resolver, err := os.ReadFile(filepath.Join(lab(), "resolv.conf"))
	if err != nil {
		return err
	}
	before, err := hostState()
	if err != nil {
		return err
	}
	env.Defer(func() {
		if err := os.WriteFile(filepath.Join(lab(), "resolv.conf"), resolver, 0); err != nil {
			env.T().Fatal(err)
		}
		if left := differs(before); left != "" {
			env.T().Fatal("the host is not as it was:\n", left)
		}
	})
	return nil
}

// hostState is what a session could leave on the lab's host: interfaces, addresses, rules, sockets that
// listen, and processes of podsh.
func hostState() (string, error) {
	state := ""
	commands := [][]string{{"ip", "-o", "addr"}, {"ip", "-o", "link"}, {"ip", "rule"}, {"ip", "route", "show", "table", "all"},
		{"ss", "-Hltun"}, {"ps", "-eo", "stat=,pid=,comm=,args="}}
	if os.Geteuid() == 0 {
		commands = append(commands, []string{"nft", "list", "ruleset"})
	}
	for _, command := range commands {
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("%s: %w", strings.Join(command, " "), err)
		}
		for line := range strings.Lines(string(out)) {
			// A host that forwards has anycast addresses: RFC 4291, section 2.6.1.
			if command[0] != "ps" && !strings.HasPrefix(line, "anycast ") || processOfOurs.MatchString(line) {
				state += volatile.ReplaceAllString(line, "")
			}
		}
	}
	return state, nil
}

var (
	processOfOurs = regexp.MustCompile(`^[^Z]\S*\s+\d+ (pause|podsh|pasta|slirp4netns)`)
	volatile      = regexp.MustCompile(` *(valid_lft \S+|preferred_lft \S+|expires \S+|users:\S+|handle \d+)`)
)

// differs compares the host with how it was. Ends are awaited, for a while.
func differs(before string) string {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		after, err := hostState()
		switch {
		case err != nil:
			return err.Error()
		case after == before:
			return ""
		case time.Now().After(deadline):
			return difference(before, after)
		}
	}
}

func difference(before, after string) string {
	var lines []string
	for line := range strings.Lines(before) {
		if !strings.Contains(after, line) {
			lines = append(lines, "-"+line)
		}
	}
	for line := range strings.Lines(after) {
		if !strings.Contains(before, line) {
			lines = append(lines, "+"+line)
		}
	}
	return strings.Join(lines, "")
}
