package spec

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/fault"
)

// ContainerSpec is what a user asked for of a container: a command in a pod, with a root of its own.
type ContainerSpec struct {
	Name       string            `json:"name,omitempty"`
	Image      string            `json:"image,omitempty"`      // as it was asked for; or
	Rootfs     rootfs.Source     `json:"rootfs,omitzero"`      // a folder
	Command    []string          `json:"command,omitempty"`    // none: the image's
	Entrypoint *string           `json:"entrypoint,omitempty"` // in place of the image's; "" means none
	User       string            `json:"user,omitempty"`
	Workdir    string            `json:"workdir,omitempty"`
	Env        []string          `json:"env,omitempty"`
	Volumes    []rootfs.Volume   `json:"volumes,omitempty"`
	PodVolumes []PodVolume       `json:"pod_volumes,omitempty"`
	Tmpfs      []rootfs.Tmpfs    `json:"tmpfs,omitempty"`
	ReadOnly   bool              `json:"read_only,omitempty"`
	CapAdd     []string          `json:"cap_add,omitempty"`
	CapDrop    []string          `json:"cap_drop,omitempty"`
	Unmask     []string          `json:"unmask,omitempty"`
	Listen     []Socket          `json:"listen,omitempty"` // on the host, that the command is given
	Ulimits    []Ulimit          `json:"ulimits,omitempty"`
	Private    []string          `json:"private,omitempty"`  // namespaces of its own, by Namespace.Name
	Hostname   string            `json:"hostname,omitempty"` // with a uts namespace of its own
	Labels     map[string]string `json:"labels,omitempty"`
	Restart    Restart           `json:"restart,omitzero"`
	StopSignal int               `json:"stop_signal,omitempty"` // 0: the image's, else SIGTERM
	StopAfter  *time.Duration    `json:"stop_after,omitempty"`  // from the signal to SIGKILL; nil: 10 s
	TTY        bool              `json:"tty,omitempty"`
	Stdin      bool              `json:"stdin,omitempty"` // kept open, for those who attach
	Detached   bool              `json:"detached,omitempty"`
	Remove     bool              `json:"remove,omitempty"` // when it has ended
}

// PodVolume is a folder that the containers of a pod share, and that ends with the pod.
type PodVolume struct {
	Name        string `json:"name"`
	Destination string `json:"destination"`
	ReadOnly    bool   `json:"read_only,omitempty"`
}

// Ulimit is a limit of a process, getrlimit(2).
type Ulimit struct {
	Name string `json:"name"` // as in ulimits
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// Ulimits are the limits by the names that docker's and Kubernetes' users know, in the units of getrlimit(2).
var Ulimits = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
	"fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK,
	"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
	"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
	"rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

// ParseUlimit reads NAME=SOFT[:HARD]; unlimited and -1 mean that there is none.
func ParseUlimit(text string) (Ulimit, error) {
	name, values, _ := strings.Cut(text, "=")
	soft, hard, both := strings.Cut(values, ":")
	if !both {
		hard = soft
	}
	u := Ulimit{Name: name}
	var err, err2 error
	u.Soft, err = parseLimit(soft)
	u.Hard, err2 = parseLimit(hard)
	_, known := Ulimits[name]
	switch {
	case !known:
		names := slices.Sorted(maps.Keys(Ulimits))
		hint := "one of " + strings.Join(names, ", ")
		if near := fault.Nearest(name, names); near != "" {
			hint = fmt.Sprintf("did you mean %s? %s", near, hint)
		}
		return u, fault.New(fault.ErrInvalid, []string{hint}, "--ulimit %q: no limit of that name", text)
	case err != nil, err2 != nil, u.Soft > u.Hard:
		return u, fault.New(fault.ErrInvalid, []string{"--ulimit NAME=SOFT[:HARD], such as nofile=1024:4096"}, "--ulimit %q is no limit", text)
	}
	return u, nil
}

func parseLimit(text string) (uint64, error) {
	if text == "unlimited" || text == "-1" {
		return unix.RLIM_INFINITY, nil
	}
	return strconv.ParseUint(text, 10, 63)
}

// Restart says when a container that has ended starts once more.
type Restart struct {
	Policy string `json:"policy,omitempty"` // "" (no), on-failure or always
	Most   int    `json:"most,omitempty"`   // restarts on-failure; 0: any number
}

// ParseRestart reads no, on-failure[:N] or always.
func ParseRestart(text string) (Restart, error) {
	policy, most, limited := strings.Cut(text, ":")
	n, err := 0, error(nil)
	if limited {
		n, err = strconv.Atoi(most)
	}
	switch {
	case policy == "no" && !limited:
		return Restart{}, nil
	case policy == "always" && !limited, policy == "on-failure" && err == nil && n >= 0 && (n > 0 || !limited):
		return Restart{policy, n}, nil
	}
	hint := "--restart no, on-failure[:N] or always"
	if text == "unless-stopped" { // docker's and podman's
		hint = "--restart always: what podsh stop has ended does not start by itself any more"
	}
	return Restart{}, fault.New(fault.ErrInvalid, []string{hint}, "--restart %q is no policy", text)
}

// String is the policy as --restart takes it.
func (r Restart) String() string {
	switch {
	case r.Policy == "":
		return "no"
	case r.Most > 0:
		return fmt.Sprintf("%s:%d", r.Policy, r.Most)
	}
	return r.Policy
}

// Again says whether a container that ended with this status, after so many restarts, is to start once more.
func (r Restart) Again(status, restarts int) bool {
	switch r.Policy {
	case "always":
		return true
	case "on-failure":
		return status != 0 && (r.Most == 0 || restarts < r.Most)
	}
	return false
}

// How long the supervisor waits before a restart: as the kubelet does, kubernetes.io "Container restart policy".
const (
	backOffFirst = 10 * time.Second
	backOffMost  = 5 * time.Minute
	BackOffReset = 10 * time.Minute // of running
)

// BackOff is how long to wait before a restart, after so many in a row of which none ran for long. The kubelet does not
// wait before the first one.
func BackOff(inARow int) time.Duration {
	wait := backOffMost
	switch {
	case inARow == 0:
		return 0
	case inARow < 10:
		wait = backOffFirst << (inARow - 1)
	}
	return min(wait, backOffMost)
}

// privatable are the namespaces that a container may have for itself.
var privatable = []string{"pid", "ipc", "uts", "net"}

// Validate says what is wrong with a spec by itself.
func (s *ContainerSpec) Validate() error {
	if s.Name != "" && !IsName(s.Name) {
		return fault.New(fault.ErrInvalid, []string{"letters, digits, and _ . - but not first; 63 at most"}, "malformed name %q", s.Name)
	}
	if s.Image == "" && s.Rootfs.Kind == "" {
		return fault.New(fault.ErrInvalid, []string{"podsh run [flags] IMAGE [CMD...]: is a variable of your shell's empty?"}, "the name of the image is empty")
	}
	if s.Image != "" && s.Rootfs.Kind != "" {
		return fault.New(fault.ErrInvalid, []string{"leave out one of them"}, "a container is made of image %q or of %s, not of both", s.Image, s.Rootfs.Dir)
	}
	if err := validateEnv(s.Env); err != nil {
		return err
	}
	if err := ValidateCapabilities(s.CapAdd, s.CapDrop); err != nil {
		return err
	}
	if s.Workdir != "" && !path.IsAbs(s.Workdir) {
		return fault.New(fault.ErrInvalid, []string{"--workdir /PATH, in the container"}, "--workdir %q is no absolute path", s.Workdir)
	}
	if s.Hostname != "" && (!IsHostname(s.Hostname) || !slices.Contains(s.Private, "uts")) {
		return fault.New(fault.ErrInvalid, []string{"--hostname names a new pod, or a container with --uts private"}, "no use for the host name %q", s.Hostname)
	}
	for _, name := range s.Private {
		if !slices.Contains(privatable, name) {
			return fault.New(fault.ErrInvalid, []string{"one of " + strings.Join(privatable, ", ")}, "a container has no %s namespace for itself alone", name)
		}
	}
	for _, v := range s.PodVolumes {
		if !IsName(v.Name) {
			return fault.New(fault.ErrInvalid, []string{"--volume NAME:DST, or a folder of the host's: --volume ./NAME:DST"}, "malformed name of a volume %q", v.Name)
		}
	}
	volumes := slices.Clone(s.Volumes)
	for _, v := range s.PodVolumes {
		volumes = append(volumes, rootfs.Volume{Destination: v.Destination})
	}
	if err := validateMounts(s.Tmpfs, volumes); err != nil {
		return err
	}
	for _, u := range s.Unmask {
		if u != "all" && !path.IsAbs(u) {
			return fault.New(fault.ErrInvalid, []string{"--unmask PATH, such as /proc/kcore, or --unmask all"}, "malformed path %q", u)
		}
	}
	if err := ValidateSockets(s.Listen, s.Ulimits...); err != nil {
		return err
	}
	return s.validateLife()
}

func (s *ContainerSpec) validateLife() error {
	if s.Restart.Policy != "" && !s.Detached {
		return fault.New(fault.ErrInvalid, []string{"add -d: who starts it once more is its supervisor"}, "--restart needs -d")
	}
	if s.Restart.Policy != "" && s.Remove {
		return fault.New(fault.ErrInvalid, []string{"choose one of them"}, "--rm and --restart exclude each other")
	}
	if s.StopAfter != nil && *s.StopAfter < 0 {
		return fault.New(fault.ErrInvalid, []string{"--stop-timeout 0 does not wait at all"}, "--stop-timeout: no time to wait")
	}
	return nil
}
