package perform

import (
	"errors"
	"io"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/doctor"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/step"
)

// HintAtMounts names mounts below the folder that an overlay was to be laid over, if those may be the cause.
func HintAtMounts(err error, root rootfs.Source) error {
	dir := root.Dir
	if !errors.Is(err, unix.EINVAL) || dir == "" || root.Mode != "overlay" {
		return err
	}
	mounts, mountsErr := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if mountsErr == nil && len(mounts) > 0 && mounts[len(mounts)-1].Mountpoint != dir {
		return fault.WithHint(err, "there are mounts below %s (such as %s), and over those the kernel lays nothing: --rootfs %s:ro or :rw",
			dir, mounts[len(mounts)-1].Mountpoint, dir)
	}
	return err
}

// ExplainFailure says what a call that failed was for.
func ExplainFailure(plan step.Plan, err error) error {
	var failed *nsenter.CallError
	if !errors.As(err, &failed) {
		if errors.Is(err, io.EOF) || errors.Is(err, nsenter.ErrGone) {
			return fault.New(nil, []string{"was it killed, or is memory short? `podsh doctor` looks at this machine"}, "%v", nsenter.ErrGone)
		}
		return err
	}
	failing, why, ok := plan.At(failed.Place)
	if !ok {
		return err
	}
	name := plan.CallName(failing.Call)
	hints := doctor.HintsFor(plan.CallKey(failing.Call, failed.Errno), failed.Errno)
	switch {
	case len(hints) > 0:
	case why.Need != "" && (failed.Errno == unix.ENOENT || failed.Errno == unix.ENOTDIR):
		hints = append(hints, why.Need)
	case why.Cmd != "":
		line, _, _ := strings.Cut(why.Cmd, "\n")
		hints = append(hints, "by hand: "+line)
	}
	return fault.New(failed.Errno, hints, "%s: %s: %v", why.Why, name, failed.Errno)
}
