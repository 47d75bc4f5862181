package machine

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/spec"
)

// readNames reads what the host knows of names, as far as the pod is to know it.
func readNames(f *plan.Facts, wanted *spec.Spec) error {
	if net := wanted.Choice("net"); net != "" && net != "new" || wanted.Net.FollowsHost() {
		text, err := os.ReadFile("/etc/resolv.conf")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		f.Resolver = string(text)
	}
	file := wanted.Net.HostsFile
	switch file {
	case "", spec.NoHosts:
		return nil
	case spec.HostsOfHost:
		file = "/etc/hosts"
	}
	text, err := readBounded(file, mostHosts)
	if err != nil {
		return fault.WithHint(fmt.Errorf("hosts file: %w", err), "--hosts-file host, none, or a FILE as hosts(5) describes it")
	}
	f.Hosts = text
	return nil
}

// mostHosts bounds a hosts file, in bytes: lists that block advertisements have megabytes, and each pod would keep
// them in memory.
const mostHosts = 1 << 20

// readBounded reads a file of the user's that is not to be larger.
func readBounded(path string, most int64) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%s: more than %d bytes", path, most)
	}
	return string(text), err
}
