package command

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/spec"
)

// mountFlags are of what is mounted in a root, of a pod or a container. form is that of a volume, and show what it does.
func mountFlags(form, show string) []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "volume", Aliases: []string{"v"}, Usage: show + ", " + form},
		&cli.StringSliceFlag{Name: "tmpfs", Usage: "mount a tmpfs on `DST`, with OPTIONS as DST:size=64m,mode=755,nr_inodes=1k,noexec"},
		&cli.BoolFlag{Name: "read-only", Usage: "make the root read-only; /run, /tmp and /var/tmp stay writable"},
	}
}

// volumes reads --volume of a pod.
func volumes(c *cli.Context) ([]rootfs.Volume, error) {
	var mounts []rootfs.Volume
	for _, text := range c.StringSlice("volume") {
		v, err := rootfs.ParseVolume(text)
		if err != nil {
			return nil, usagef("--volume /of/the/host:/in/the/pod[:ro]", "%v", err)
		}
		mounts = append(mounts, v)
	}
	return mounts, nil
}

// volumeSpec reads --volume of a container. It tells volumes of the pod from folders of the host: those have a slash, or a dot before it.
func volumeSpec(c *cli.Context, asked *spec.ContainerSpec) error {
	for _, text := range c.StringSlice("volume") {
		v, err := rootfs.ParseVolume(text)
		if err != nil {
			return usagef("--volume /of/the/host:/in/the/container[:ro], or NAME:/in/the/container", "%v", err)
		}
		name, _, _ := strings.Cut(text, ":")
		if strings.Contains(name, "/") || name == "." || name == ".." {
			asked.Volumes = append(asked.Volumes, v)
			continue
		}
		asked.PodVolumes = append(asked.PodVolumes, spec.PodVolume{Name: name, Destination: v.Destination, ReadOnly: v.ReadOnly})
	}
	return nil
}

// tmpfsSpec reads --tmpfs DST[:OPTIONS].
func tmpfsSpec(c *cli.Context) ([]rootfs.Tmpfs, error) {
	var mounts []rootfs.Tmpfs
	for _, text := range c.StringSlice("tmpfs") {
		t, err := rootfs.ParseTmpfs(text)
		if err != nil {
			return nil, usagef("--tmpfs /in/the/pod[:size=64m,nr_inodes=1k,mode=755,noexec]", "%v", err)
		}
		mounts = append(mounts, t)
	}
	return mounts, nil
}
