// Package container runs commands: those of containers, those that join a pod, and those that copy files in and out;
// and it knows what a container leaves. It does not know which of a pod's containers runs when, nor who asks.
package container

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
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
)

// newContainer puts together what was asked for and what the image says; img may be nil.
func newContainer(p *pod.Pod, wanted *spec.ContainerSpec, img *image.Image) (*pod.Container, error) {
	c := &pod.Container{Format: pod.ContainerFormat, ID: store.NewID(), Name: wanted.Name, Pod: p.ID, Created: time.Now().UTC(), Spec: *wanted,
		Root: wanted.Rootfs, User: wanted.User, Workdir: wanted.Workdir, Signal: wanted.StopSignal, In: p}
	var config image.Config
	if img != nil {
		config = img.Config
		c.Image = pod.ContainerImage{Name: wanted.Image, ID: img.ID, Digest: img.Digest}
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
		return nil, (&attempt{argv: c.Argv, where: WhereOf(c)}).notFound()
	}
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return nil, fault.New(fault.ErrInvalid, []string{"podsh run IMAGE CMD..."}, "nothing to run: %s", noCommandIn(wanted))
	}
	c.Env = plan.MergeEnv(slices.DeleteFunc(slices.Clone(config.Env), func(v string) bool { return !spec.IsVariable(v) }), wanted.Env)
	if c.User == "" {
		c.User = config.User
	}
	if c.Workdir == "" {
		c.Workdir = config.WorkingDir
	}
	c.Workdir = path.Join("/", c.Workdir)
	if c.Signal == 0 {
		sig, err := proc.ImageSignal(config.StopSignal)
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

// View is the pod as the container is to see it: a pod whose namespaces are another's, but for those that the
// container has for itself.
func View(c *pod.Container) *pod.Pod {
	p := c.In
	v := &pod.Pod{Format: pod.Format, ID: c.ID, Hostname: p.Hostname, Namespaces: map[string]spec.Choice{},
		UIDMap: p.UIDMap, GIDMap: p.GIDMap, OneID: p.OneID, KeepGroups: p.KeepGroups, UID: ids.FirstID(p.UIDMap), GID: ids.FirstID(p.GIDMap),
		Holder: p.Holder, PlanFormat: p.PlanFormat, OwnFile: p.OwnFile, Root: p.Root}
	for name, choice := range p.Namespaces {
		if choice.Kind == "new" {
			choice = spec.Choice{Kind: "pod", Value: p.ID}
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
		CapAdd: slices.Concat(p.Spec.CapAdd, c.Spec.CapAdd), CapDrop: slices.Concat(p.Spec.CapDrop, c.Spec.CapDrop),
		Unmask: slices.Concat(p.Spec.Unmask, c.Spec.Unmask), Volumes: slices.Clone(c.Spec.Volumes)}
	for _, volume := range c.Spec.PodVolumes {
		v.Spec.Volumes = append(v.Spec.Volumes, rootfs.Volume{Source: store.VolumePath(p, volume.Name), Destination: volume.Destination, ReadOnly: volume.ReadOnly})
	}
	if !c.Memory && c.Root.Mode == "overlay" {
		v.Upper = c.Disk
	}
	return v
}
