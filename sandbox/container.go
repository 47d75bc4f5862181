package sandbox

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/ids"
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

	pod    *Pod
	broken error // why its description can't be read: then there is nothing else than its ID and its Disk
}

// ContainerImage says which image a container was made of.
type ContainerImage struct {
	Name   string `json:"name"`
	ID     string `json:"id"`
	Digest string `json:"digest"`
}

const containerFormat = 2

// Title is POD/NAME.
func (c *Container) Title() string { return c.pod.Title() + "/" + c.Name }

// InPod returns its pod.
func (c *Container) InPod() *Pod { return c.pod }

// defaultStop is how long a container has from its stop signal to SIGKILL.
const defaultStop = 10 * time.Second

func (c *Container) grace() time.Duration {
	if c.Spec.StopAfter != nil {
		return *c.Spec.StopAfter
	}
	return defaultStop
}

// newContainer puts together what was asked for and what the image says; img may be nil.
func newContainer(pod *Pod, wanted *spec.ContainerSpec, img *image.Image) (*Container, error) {
	c := &Container{Format: containerFormat, ID: newID(), Name: wanted.Name, Pod: pod.ID, Created: time.Now().UTC(), Spec: *wanted,
		Root: wanted.Rootfs, User: wanted.User, Workdir: wanted.Workdir, Signal: wanted.StopSignal, pod: pod}
	var config image.Config
	if img != nil {
		config = img.Config
		c.Image = ContainerImage{wanted.Image, img.ID, img.Digest}
		c.Spec.Labels = map[string]string{}
		maps.Copy(c.Spec.Labels, config.Labels)
		maps.Copy(c.Spec.Labels, wanted.Labels)
	}
	for dst := range config.Volumes {
		if dst = path.Join("/", dst); dst != "/" {
			c.Volumes = append(c.Volumes, dst)
		}
	}
	slices.Sort(c.Volumes)
	c.Argv = argv(wanted, &config)
	if len(wanted.Command) > 0 && c.Argv[0] == "" {
		return nil, (&attempt{argv: c.Argv, where: c.Of()}).notFound()
	}
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return nil, fault.New(fault.ErrInvalid, []string{"podsh run IMAGE CMD..."}, "nothing to run: %s", noCommandIn(wanted))
	}
	c.Env = mergeEnv(slices.DeleteFunc(slices.Clone(config.Env), func(v string) bool { return !spec.IsVariable(v) }), wanted.Env)
	if c.User == "" {
		c.User = config.User
	}
	if c.Workdir == "" {
		c.Workdir = config.WorkingDir
	}
	c.Workdir = path.Join("/", c.Workdir)
	if c.Signal == 0 {
		sig, err := imageSignal(config.StopSignal)
		if err != nil {
			return nil, err
		}
		c.Signal = int(sig)
	}
	for _, text := range slices.Concat(c.Argv, config.Env, []string{c.User, c.Workdir}) {
		if strings.ContainsRune(text, 0) {
			return nil, fault.New(fault.ErrInvalid, []string{"no program can be given that"}, "%q has a null byte in it", text)
		}
	}
	return c, nil
}

func noCommandIn(spec *spec.ContainerSpec) string {
	if spec.Image == "" {
		return "a folder has no command of its own"
	}
	return fmt.Sprintf("image %q names no command", spec.Image)
}

// argv is what is run: the image's Entrypoint and behind it its Cmd, or what was asked for in place of them. A new
// entry point takes no Cmd with it, docker's rule.
func argv(spec *spec.ContainerSpec, config *image.Config) []string {
	entrypoint, command := config.Entrypoint, config.Cmd
	if slices.Equal(entrypoint, []string{""}) { // a Dockerfile's way to say that it has none
		entrypoint = nil
	}
	if spec.Entrypoint != nil {
		entrypoint, command = nil, nil
		if *spec.Entrypoint != "" {
			entrypoint = []string{*spec.Entrypoint}
		}
	}
	if len(spec.Command) > 0 {
		command = spec.Command
	}
	return slices.Concat(entrypoint, command)
}

// view is the pod as the container is to see it: a pod whose namespaces are another's, but for those that the
// container has for itself.
func (c *Container) view() *Pod {
	pod := c.pod
	v := &Pod{Format: podFormat, ID: c.ID, Hostname: pod.Hostname, Namespaces: map[string]spec.Choice{},
		UIDMap: pod.UIDMap, GIDMap: pod.GIDMap, OneID: pod.OneID, KeepGroups: pod.KeepGroups, UID: ids.FirstID(pod.UIDMap), GID: ids.FirstID(pod.GIDMap),
		Holder: pod.Holder, PlanFormat: pod.PlanFormat, OwnFile: pod.OwnFile, Root: pod.Root}
	for name, choice := range pod.Namespaces {
		if choice.Kind == "new" {
			choice = spec.Choice{Kind: "pod", Value: pod.ID}
		}
		v.Namespaces[name] = choice
	}
	v.Namespaces["mnt"] = spec.Choice{Kind: "new"}
	for _, name := range c.Spec.Private {
		v.Namespaces[name] = spec.Choice{Kind: "new"}
	}
	if c.Spec.Hostname != "" {
		v.Hostname = c.Spec.Hostname
	}
	v.Spec = spec.Spec{Name: c.Name, Rootfs: c.Root, Tmpfs: c.Spec.Tmpfs, ReadOnly: c.Spec.ReadOnly, Env: c.Env,
		CapAdd: slices.Concat(pod.Spec.CapAdd, c.Spec.CapAdd), CapDrop: slices.Concat(pod.Spec.CapDrop, c.Spec.CapDrop),
		Unmask: slices.Concat(pod.Spec.Unmask, c.Spec.Unmask), Volumes: slices.Clone(c.Spec.Volumes)}
	for _, volume := range c.Spec.PodVolumes {
		v.Spec.Volumes = append(v.Spec.Volumes, rootfs.Volume{Source: pod.volumePath(volume.Name), Destination: volume.Destination, ReadOnly: volume.ReadOnly})
	}
	if !c.Memory && c.Root.Mode == "overlay" {
		v.Upper = c.Disk
	}
	return v
}
