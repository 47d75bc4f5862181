package link

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"
)

// plugins runs plugins for libcni. Its own runner waits for ever for a plugin's children when the plugin was
// killed, and leaves them running.
type plugins struct{ version.PluginDecoder }

var _ invoke.Exec = &plugins{}

// FindInPath: invoke.Exec.
func (*plugins) FindInPath(plugin string, path []string) (string, error) {
	found, err := invoke.FindInPath(plugin, path)
	if err != nil {
		return "", &NoPluginError{Plugin: plugin, Path: path}
	}
	return found, nil
}

// ExecPlugin: invoke.Exec. A plugin whose time is over is killed with the plugins that it started, which are
// in its process group.
func (*plugins) ExecPlugin(ctx context.Context, path string, input []byte, environment []string) ([]byte, error) {
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = withSbin(environment)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second // for the pipes, which a process that left the group may hold
	start := time.Now()
	err := cmd.Run()
	switch {
	case (err == nil || errors.Is(err, exec.ErrWaitDelay)) && out.Len() > 0 && !json.Valid(out.Bytes()):
		return nil, fmt.Errorf("%s: what it says is no result: %.80q", filepath.Base(path), out.Bytes())
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return out.Bytes(), nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s gave no answer in %v: %w", filepath.Base(path), time.Since(start).Round(time.Millisecond), ctx.Err())
	}
	told := &types.Error{}
	if json.Unmarshal(out.Bytes(), told) == nil && told.Msg != "" {
		return nil, told
	}
	if why := bytes.TrimSpace(append(said.Bytes(), out.Bytes()...)); len(why) > 0 {
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(path), err, why)
	}
	return nil, fmt.Errorf("%s: %w, without a word", filepath.Base(path), err)
}

// withSbin lets plugins find iptables, which an ordinary user's PATH often lacks.
func withSbin(environment []string) []string {
	for i, variable := range environment {
		if path, ok := strings.CutPrefix(variable, "PATH="); ok {
			environment[i] = "PATH=" + strings.Join(append([]string{path}, sbin...), ":")
			return environment
		}
	}
	return append(environment, "PATH=/usr/bin:/bin:"+strings.Join(sbin, ":"))
}
