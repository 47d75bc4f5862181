// Package spec is what a user asks for: of a pod, of a container, of a command that joins one, of a network. It parses
// and checks what can be checked by itself. What this machine can do, and what there is already, it does not know: it
// reads nothing, and calls no kernel.
package spec

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/ids"
)

// Spec is what a user asked for: plain data, as `podsh inspect` shows it.
type Spec struct {
	Name       string            `json:"name,omitempty"`
	Hostname   string            `json:"hostname,omitempty"` // default: the name, else the id
	Labels     map[string]string `json:"labels,omitempty"`
	Rootfs     rootfs.Source     `json:"rootfs"`
	Volumes    []rootfs.Volume   `json:"volumes,omitempty"`
	Tmpfs      []rootfs.Tmpfs    `json:"tmpfs,omitempty"`
	ReadOnly   bool              `json:"read_only,omitempty"`
	Env        []string          `json:"env,omitempty"` // KEY=VALUE, for every command that joins
	CapAdd     []string          `json:"cap_add,omitempty"`
	CapDrop    []string          `json:"cap_drop,omitempty"`
	Unmask     []string          `json:"unmask,omitempty"`     // paths, or "all"
	Namespaces map[string]Choice `json:"namespaces,omitempty"` // by Namespace.Name; what is not there is the default
	Net        Net               `json:"net,omitzero"`         // of a new net namespace
	Clocks     []Clock           `json:"clocks,omitempty"`     // offsets of a new time namespace
	UIDMap     []ids.Map         `json:"uid_map,omitempty"`
	GIDMap     []ids.Map         `json:"gid_map,omitempty"`
	KeepID     bool              `json:"keep_id,omitempty"`
}

// Choice says where a namespace comes from.
type Choice struct {
	Kind  string `json:"kind"`            // "new", "host", "path" or "pod"
	Value string `json:"value,omitempty"` // the file, or the other pod
}

// ParseChoice reads new, host, path:FILE or pod:OTHER.
func ParseChoice(option, text string) (Choice, error) {
	kind, value, has := strings.Cut(text, ":")
	switch {
	case (kind == "new" || kind == "host") && !has,
		(kind == "path" || kind == "pod") && value != "":
		return Choice{kind, value}, nil
	}
	return Choice{}, fault.New(fault.ErrInvalid, []string{insteadOfChoice(option, kind, value)},
		"--%s %q is no namespace", option, text)
}

// insteadOfChoice is the hint for KIND[:VALUE] that is no namespace.
func insteadOfChoice(option, kind, value string) string {
	words := []string{"new", "host"}
	switch {
	case kind == "container": // docker's and podman's
		return fmt.Sprintf("--%s pod:OTHER shares that of a pod; podsh run --pod OTHER IMAGE runs a container in it", option)
	case kind == "ns":
		return "--" + option + " path:FILE"
	case kind == "private":
		return "--" + option + " new"
	case option == "userns" && kind == "keep-id":
		return "--keep-id"
	case value != "":
		words = []string{"path", "pod"}
	}
	if near := fault.Nearest(kind, words); near != "" {
		return fmt.Sprintf("did you mean --%s %s?", option, strings.TrimSuffix(near+":"+value, ":"))
	}
	return "one of: new, host, path:FILE, pod:OTHER"
}

// Clock is an offset of one clock in a time namespace, time_namespaces(7).
type Clock struct {
	Name    string `json:"name"` // "monotonic" or "boottime"
	Seconds int64  `json:"seconds"`
}

// ParseClocks reads offsets such as boottime=+1d,monotonic=-30s. Units: s, m, h, d; none means seconds.
func ParseClocks(text string) ([]Clock, error) {
	var clocks []Clock
	for part := range strings.SplitSeq(text, ",") {
		name, offset, _ := strings.Cut(part, "=")
		seconds, err := parseSeconds(offset)
		if name != "boottime" && name != "monotonic" || err != nil {
			return nil, fault.New(fault.ErrInvalid, []string{"host, or offsets such as boottime=+1d,monotonic=-30s (not the wall clock: the kernel has one for all)"},
				"--time %q is no offset of a clock", part)
		}
		clocks = append(clocks, Clock{name, seconds})
	}
	return clocks, nil
}

func parseSeconds(text string) (int64, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 32)
		return n * 24 * 60 * 60, err
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, nil
	}
	d, err := time.ParseDuration(text)
	return int64(d / time.Second), err
}

// IsName says whether a pod can be called so. (By hand: compiling a pattern would cost every command a
// quarter of a millisecond.) nsenter.c has the same rule.
func IsName(s string) bool {
	const first = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return s != "" && len(s) <= 63 && strings.Contains(first, s[:1]) && strings.Trim(s, first+"_.-") == ""
}

// IsHostname says whether a pod's host can be called so, hostname(7).
func IsHostname(s string) bool {
	return IsName(s) && !strings.Contains(s, "_") && strings.TrimRight(s, ".-") == s
}

// IsVariable says whether s is KEY=VALUE.
func IsVariable(s string) bool {
	return strings.Index(s, "=") > 0 && !strings.Contains(s, "\x00")
}

// Validate says what is wrong with a spec by itself, before anything is known of the machine.
func (s *Spec) Validate() error {
	if s.Name != "" && !IsName(s.Name) {
		return fault.New(fault.ErrInvalid, []string{"letters, digits, and _ . - but not first; 63 at most"}, "malformed name %q", s.Name)
	}
	if s.Hostname != "" && !IsHostname(s.Hostname) {
		return fault.New(fault.ErrInvalid, []string{"letters, digits, dots and dashes; 63 at most"}, "malformed host name %q", s.Hostname)
	}
	for key := range s.Labels {
		if key == "" || strings.ContainsAny(key, "\x00=\n") {
			return fault.New(fault.ErrInvalid, []string{"--label KEY=VALUE"}, "malformed label %q", key)
		}
	}
	if err := validateEnv(s.Env); err != nil {
		return err
	}
	if err := validateMounts(s.Tmpfs, s.Volumes); err != nil {
		return err
	}
	for _, path := range s.Unmask {
		if path != "all" && !filepath.IsAbs(path) {
			return fault.New(fault.ErrInvalid, []string{"--unmask PATH, such as /proc/kcore, or --unmask all"}, "malformed path %q", path)
		}
	}
	if err := ValidateCapabilities(s.CapAdd, s.CapDrop); err != nil {
		return err
	}
	if err := s.validateNet(); err != nil {
		return err
	}
	return s.validateNamespaces()
}

// validateMounts refuses places that two things are to be mounted on.
func validateMounts(tmpfs []rootfs.Tmpfs, volumes []rootfs.Volume) error {
	taken := map[string]bool{}
	for _, t := range tmpfs {
		if taken[t.Destination] {
			return fault.New(fault.ErrInvalid, []string{"once is enough"}, "two tmpfs on %s", t.Destination)
		}
		taken[t.Destination] = true
	}
	for _, v := range volumes {
		if taken[v.Destination] {
			return fault.New(fault.ErrInvalid, []string{"choose one of them, or another place"}, "two volumes, or a volume and a tmpfs, on %s", v.Destination)
		}
		taken[v.Destination] = true
	}
	return nil
}

func validateEnv(env []string) error {
	for _, v := range env {
		if !IsVariable(v) {
			return fault.New(fault.ErrInvalid, []string{"--env KEY=VALUE"}, "malformed variable %q", v)
		}
	}
	return nil
}

// validateNamespaces refuses what contradicts itself.
func (s *Spec) validateNamespaces() error {
	if mnt := s.Choice("mnt"); mnt != "new" && mnt != "" {
		for flag, given := range map[string]bool{
			"--rootfs": s.Rootfs.IsFolder(), "--volume": len(s.Volumes) > 0, "--tmpfs": len(s.Tmpfs) > 0,
			"--read-only": s.ReadOnly, "--unmask": len(s.Unmask) > 0,
			"--hosts-file": s.Net.HostsFile != "" && s.Net.HostsFile != NoHosts, "--add-host": len(s.Net.Hosts) > 0,
			"--dns-search": len(s.Net.Search) > 0, "--dns-option": len(s.Net.Options) > 0,
		} {
			if given {
				return fault.New(fault.ErrInvalid, []string{"leave out --mnt, or " + flag},
					"%s changes mounts or files, and with --mnt %s they are not the pod's own", flag, mnt)
			}
		}
	}
	if uts := s.Choice("uts"); uts != "new" && uts != "" && s.Hostname != "" {
		return fault.New(fault.ErrInvalid, []string{"leave out --uts, or --hostname"}, "--hostname needs a uts namespace of its own")
	}
	if userns := s.Choice("user"); s.Net.OnNetworks() && (userns == "pod" || userns == "path") {
		return fault.New(fault.ErrInvalid, []string{"leave out --userns, or the networks"}, "a pod on networks has a user namespace of its own, and --userns %s is another's", userns)
	}
	mapped := len(s.UIDMap) > 0 || len(s.GIDMap) > 0
	if userns := s.Choice("user"); userns != "new" && userns != "" && s.AsksForMap() {
		return fault.New(fault.ErrInvalid, []string{"leave out --userns, or the map"}, "--uidmap, --gidmap and --keep-id need a user namespace of its own")
	}
	if mapped && s.KeepID {
		return fault.New(fault.ErrInvalid, []string{"choose one of them"}, "--keep-id makes a map of its own: it excludes --uidmap and --gidmap")
	}
	for what, rows := range map[string][]ids.Map{"--uidmap": s.UIDMap, "--gidmap": s.GIDMap} {
		if err := ids.Validate(what, rows); err != nil {
			return err
		}
	}
	return nil
}

// MapsIDs says whether a pod is to have other ids than usual.
func (s *Spec) MapsIDs() bool { return s.AsksForMap() || s.Choice("user") != "" }

// AsksForMap says whether ids are to be mapped, which takes a user namespace.
func (s *Spec) AsksForMap() bool { return len(s.UIDMap) > 0 || len(s.GIDMap) > 0 || s.KeepID }

// Choice returns the kind that was asked for, or "".
func (s *Spec) Choice(namespace string) string { return s.Namespaces[namespace].Kind }

// Others lists the pods whose namespaces this one shares.
func (s *Spec) Others() []string {
	pods := map[string]bool{}
	for _, c := range s.Namespaces {
		if c.Kind == "pod" {
			pods[c.Value] = true
		}
	}
	return slices.Sorted(maps.Keys(pods))
}
