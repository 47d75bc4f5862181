package pod

import (
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
)

// Container is a container as the store describes it: all that its plan needs, but for what the pod and the
// machine are like when it starts.
type Container struct {
	Format  int                `json:"format"`
	ID      string             `json:"id"`
	Name    string             `json:"name"`
	Pod     string             `json:"pod"` // its id
	Created time.Time          `json:"created"`
	Spec    spec.ContainerSpec `json:"spec"`
	Image   ContainerImage     `json:"image,omitzero"`
	Root    rootfs.Source      `json:"root"`
	Disk    string             `json:"disk,omitempty"`   // its folder: what it writes, and its log
	Memory  bool               `json:"memory,omitempty"` // what it writes ends with each run: that folder's disk can't carry an overlay
	Argv    []string           `json:"argv"`
	Env     []string           `json:"env"` // of the image and of the spec
	User    string             `json:"user,omitempty"`
	Workdir string             `json:"workdir"`
	Volumes []string           `json:"volumes,omitempty"` // folders that the image wants to write to, whatever the root is
	Signal  int                `json:"signal"`            // that asks it to end
	OwnPod  bool               `json:"own_pod,omitempty"` // the pod is there for it alone

	In     *Pod  `json:"-"`
	Broken error `json:"-"` // why its description can't be read: then there is nothing else than its ID and its Disk
}

// ContainerImage says which image a container was made of.
type ContainerImage struct {
	Name   string `json:"name"`
	ID     string `json:"id"`
	Digest string `json:"digest"`
}

// ContainerFormat is that of a container's description. Another podsh's is not read.
const ContainerFormat = 2

// Title is POD/NAME.
func (c *Container) Title() string { return c.In.Title() + "/" + c.Name }

// InPod returns its pod.
func (c *Container) InPod() *Pod { return c.In }

// defaultStop is how long a container has from its stop signal to SIGKILL.
const defaultStop = 10 * time.Second

// Grace is how long after its stop signal it gets SIGKILL.
func (c *Container) Grace() time.Duration {
	if c.Spec.StopAfter != nil {
		return *c.Spec.StopAfter
	}
	return defaultStop
}

// Containers are described beside their pod:
//
//	pods/ID/containers/CID/container.json   the container, which does not change
//	pods/ID/containers/CID/state.json       what it is doing: written by whoever watches over it
//	pods/ID/names/NAME                      the id of the container called so
//	pods/ID/supervisor                      the socket of the pod's supervisor (package supervise)
//	pods/ID/disk                            a link to the folder with the pod's volumes
//
// What a container writes, and its log, is in a folder on disk (Container.Disk).

// ContainerStatus is what a container is doing.
type ContainerStatus string

const (
	Created    ContainerStatus = "created"
	Up         ContainerStatus = "running"
	Restarting ContainerStatus = "restarting" // it has ended, and will start once more
	Ended      ContainerStatus = "exited"
)

// ContainerState is what a container is doing, and how it went.
type ContainerState struct {
	Status    ContainerStatus `json:"status"`
	Process   proc.ID         `json:"process,omitzero"` // the command, or its init
	MountNS   uint64          `json:"mount_namespace,omitempty"`
	Watcher   proc.ID         `json:"watcher,omitzero"` // whose child it is: the pod's supervisor, or podsh run
	Started   time.Time       `json:"started,omitzero"`
	Finished  time.Time       `json:"finished,omitzero"`
	ExitCode  int             `json:"exit_code"`
	Reason    string          `json:"reason,omitempty"` // why it ended, where its status does not tell
	Restarts  int             `json:"restarts"`
	InARow    int             `json:"restarts_in_a_row,omitempty"` // none of which ran for long
	RestartAt time.Time       `json:"restart_at,omitzero"`
	Stopped   bool            `json:"stopped,omitempty"` // somebody wanted it to end: no restart
}

// Lost is what a state becomes when nobody watches any more.
func (s *ContainerState) Lost() *ContainerState {
	if s.Status == Up {
		s.ExitCode, s.Finished = 128+int(unix.SIGKILL), time.Now().UTC()
	}
	s.Status, s.Reason = Ended, "what watched over it was killed, and it with that"
	return s
}

// Writes is the folder of the host's with what the container writes; nothing, where that is in memory, or it writes nothing.
func (c *Container) Writes() string {
	switch upper := filepath.Join(c.Disk, "upper"); {
	case c.Root.Mode == "rw":
		return c.Root.Dir
	case c.Root.Mode == "overlay" && !c.Memory && files.Exists(upper):
		return upper
	}
	return ""
}
