package helper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/network/link"
)

// patience is how long a plugin has.
const patience = 30 * time.Second

// workOn does what it is told, one thing after the other, until nobody wants more.
func workOn(conn *os.File) int {
	defer conn.Close()
	for {
		job := &control.Work{}
		files, err := control.Receive(conn, job)
		if err != nil {
			return 0
		}
		done := &control.Done{}
		if done.Attachment, err = do(job, files); err != nil {
			done.Error, done.Hint = err.Error(), hint(err, job)
		}
		control.Close(files)
		if control.Send(conn, done) != nil {
			return 1
		}
	}
}

func do(job *control.Work, files []*os.File) (*network.Attachment, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	place := link.Place{LeaseDir: job.Leases, CacheDir: job.Cache, PluginPath: job.PluginPath, Masquerade: job.Masquerade}
	pod := link.Pod{ID: job.Pod, Interface: job.Interface, Default: job.Default, IPs: job.IPs, MAC: job.MAC}
	if len(files) > 0 {
		pod.NetNS = files[0]
	}
	n := link.Network(job.Network)
	switch job.Do {
	case control.Attach:
		a, err := place.Attach(ctx, n, pod)
		return (*network.Attachment)(a), err
	case control.Detach:
		if job.Attachment != nil {
			pod.Interface = job.Attachment.Interface
		}
		return nil, place.Detach(ctx, n, pod, (*link.Attachment)(job.Attachment))
	case control.Remove:
		return nil, place.Remove(ctx, n)
	}
	return nil, fmt.Errorf("no work is called %q", job.Do)
}

// hint says what to do about an error.
func hint(err error, job *control.Work) string {
	var exhausted *link.ExhaustedError
	var plugin *link.NoPluginError
	var inUse *link.InUseError
	var taken *link.TakenError
	switch {
	case errors.As(err, &exhausted):
		return "remove pods that are on it, or create a network with a larger --subnet"
	case errors.As(err, &taken):
		return fmt.Sprintf("choose another, or none; `podsh network inspect %s` shows which are taken", job.Network.Name)
	case errors.As(err, &plugin):
		return "install it (Debian: containernetworking-plugins), or name its folder in CNI_PATH; looked in " + strings.Join(plugin.Path, ", ")
	case errors.As(err, &inUse):
		return "podsh rm -f " + strings.Join(inUse.Pods, " ")
	case errors.Is(err, link.ErrNoNAT):
		return "install nftables"
	case filesHint(err) != "":
		return filesHint(err)
	case errors.Is(err, os.ErrPermission):
		return "`podsh doctor` looks at this machine"
	}
	return fmt.Sprintf("`podsh network inspect %s` shows how it was made", job.Network.Name)
}
