package sandbox

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/machine"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/step"
	"github.com/podsh/podsh/sandbox/store"
)

// TestSourcesAreTakenFromPrivateMounts: before Linux 5.12 that is all that keeps what is mounted below a volume, or below
// the folder that is the root, from being mounted in the host's own tree as well.
func TestSourcesAreTakenFromPrivateMounts(t *testing.T) {
	f := machineFacts()
	f.Root, f.Kernel, f.Volumes = true, plan.Version{Major: 5, Minor: 10}, []bool{true}
	pod, _, err := plan.Resolve(&spec.Spec{Rootfs: rootfs.Source{Kind: "host"}, Volumes: []rootfs.Volume{{Source: "/srv", Destination: "/srv"}}}, f, "0123456789ab")
	if err != nil {
		t.Fatal(err)
	}
	private := false
	for _, call := range plan.Create(pod, f, plan.ExeMemfd).Calls() {
		switch {
		case call.Nr == unix.SYS_MOUNT && call.Args[1] == "/" && call.Args[3] == unix.MS_REC|unix.MS_PRIVATE:
			private = true
		case call.Nr == unix.SYS_OPEN_TREE && !private:
			t.Errorf("%s comes before all mounts are private", step.ShowCall(call))
		}
	}
}

// TestOldKernel makes pods here as it is done on Linux 5.11, which has no mount_setattr(2) that would make a clone of a
// mount private, with mounts that are shared as systemd leaves them: nothing shows up in the host's tree.
func TestOldKernel(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "volume")
	for _, folder := range append([]string{"/sub"}, plan.MountPoints...) {
		if err := os.MkdirAll(dir+folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PODSH_ROOT", filepath.Join(t.TempDir(), "podsh"))
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	host := rootfs.Source{Kind: "host"}
	for name, spec := range map[string]*spec.Spec{
		"volume": {Rootfs: host, Volumes: []rootfs.Volume{{Source: dir, Destination: "/data"}}, Tmpfs: []rootfs.Tmpfs{{Destination: "/data/sub"}}},
		"rw":     {Rootfs: rootfs.Source{Kind: "dir", Dir: dir, Mode: "rw"}},
		"ro":     {Rootfs: rootfs.Source{Kind: "dir", Dir: dir, Mode: "ro"}},
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() == 0 { // who is not has a mount namespace of a lower rank, from which nothing gets here
				shareMounts(t)
			}
			before := threadMounts(t)
			pod, err := createAsOn(plan.Version{Major: 5, Minor: 11}, spec)
			if after := threadMounts(t); after != before {
				t.Errorf("mounts before:\n%s\nafter:\n%s", before, after)
			}
			if err != nil {
				t.Fatalf("%v %q", err, fault.Hints(err))
			}
			if err := Remove(pod, true); err != nil {
				t.Error(err)
			}
		})
	}
}

// createAsOn is Propose and Create where an older kernel is to be thought of.
func createAsOn(kernel plan.Version, spec *spec.Spec) (*pod.Pod, error) {
	store, err := store.OpenStore()
	if err != nil {
		return nil, err
	}
	facts, entrances, err := machine.ReadFacts(spec, store)
	if err != nil {
		return nil, err
	}
	facts.Kernel = kernel
	proposal, err := propose(spec, store, facts, &held{entrances: entrances}, Options{})
	if err != nil {
		return nil, err
	}
	pod, _, err := proposal.Create()
	return pod, err
}

// shareMounts gives this thread, and what it starts, mounts of their own that are all shared. It ends with the test.
func shareMounts(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	for _, propagation := range []uintptr{unix.MS_PRIVATE, unix.MS_SHARED} {
		if err := unix.Mount("", "/", "", unix.MS_REC|propagation, ""); err != nil {
			t.Fatal(err)
		}
	}
}

func threadMounts(t *testing.T) string {
	t.Helper()
	table, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(table)
}
