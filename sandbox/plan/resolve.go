package plan

import (
	"maps"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
)

// Resolve fills in what the spec leaves open, from the facts: which namespaces are new, which ids are mapped.
// It refuses what the kernel would. Warnings say what is lost.
func Resolve(wanted *spec.Spec, f *Facts, id string) (p *pod.Pod, warnings []error, err error) {
	p = &pod.Pod{Format: pod.Format, ID: id, Spec: *wanted, Namespaces: map[string]spec.Choice{}, Hostname: wanted.Hostname}
	if p.Hostname == "" {
		p.Hostname = p.DefaultHostname()
	}
	for _, ns := range spec.Namespaces {
		choice := wanted.Namespaces[ns.Name]
		switch {
		case choice.Kind == "" && ns.Name == "user" && wanted.AsksForMap():
			choice = spec.Choice{Kind: "new"}
		case choice.Kind == "":
			choice = defaultChoice(ns, f)
		case choice.Kind == "new" && !f.Namespaces[ns.Name]:
			return nil, nil, fault.New(nil, []string{"leave out --" + ns.Option}, "this kernel has no %s namespaces", ns.Name)
		}
		p.Namespaces[ns.Name] = choice
	}
	if !f.Root {
		if err := shareUser(p, wanted, f); err != nil {
			return nil, nil, err
		}
	}
	if way := wanted.Net.WayOut; f.UID == 0 && (way == spec.WayOutPasta || way == spec.WayOutSlirp) {
		return nil, nil, fault.New(nil, []string{"--net outbound does the same, and works for root, too"},
			"--net outbound:%s is not for root: that program would have to run with all of root's powers", way)
	}
	if err := checkEntrances(f); err != nil {
		return nil, nil, err
	}
	if warnings, err = mapIDs(p, wanted, f); err != nil {
		return nil, nil, err
	}
	p.KeepGroups = p.KeepGroups || p.OneID || f.NoSetgroups
	return p, warnings, nil
}

func defaultChoice(ns spec.Namespace, f *Facts) spec.Choice {
	switch {
	case ns.Name == "user" && f.Root, ns.Name == "time", !f.Namespaces[ns.Name]:
		return spec.Choice{Kind: "host"}
	}
	return spec.Choice{Kind: "new"}
}

// shareUser: without root a namespace can be entered only through the user namespace that owns it, so that is
// shared as well.
func shareUser(pod *pod.Pod, wanted *spec.Spec, f *Facts) error {
	user := pod.Namespaces["user"]
	asked := wanted.Choice("user")
	for _, ns := range spec.Namespaces {
		c := pod.Namespaces[ns.Name]
		if c.Kind != "pod" && c.Kind != "path" {
			continue
		}
		if asked == "new" || asked == "host" {
			return fault.New(fault.ErrInvalid, []string{"leave out --userns: it is shared with " + c.Value},
				"--userns %s does not go with --%s %s:%s without root: the %s namespace can only be entered through the user namespace that owns it",
				asked, ns.Option, c.Kind, c.Value, ns.Name)
		}
		user = c
	}
	if user.Kind == "host" {
		return fault.New(fault.ErrInvalid, []string{"leave out --userns"},
			"--userns host needs root: the capabilities to make a pod come from a user namespace")
	}
	pod.Namespaces["user"] = user
	return nil
}

// checkEntrances drops a user namespace that is entered twice, and refuses two of them: setns(2) leads only
// downwards.
func checkEntrances(f *Facts) error {
	var first *Entrance
	for i := range f.Enter {
		e := &f.Enter[i]
		if e.Flags&unix.CLONE_NEWUSER == 0 {
			continue
		}
		if first == nil {
			first = e
			continue
		}
		if first.UserNS == 0 || first.UserNS != e.UserNS {
			return fault.New(nil, []string{"without root all shared namespaces must belong to one user namespace"},
				"%s and %s are in different user namespaces", first.What, e.What)
		}
		e.Flags &^= unix.CLONE_NEWUSER
	}
	return nil
}

// mapIDs decides which ids the pod has.
func mapIDs(pod *pod.Pod, spec *spec.Spec, f *Facts) (warnings []error, err error) {
	switch c := pod.Namespaces["user"]; c.Kind {
	case "new":
		return ChooseMaps(pod, spec, f)
	case "pod":
		for _, e := range f.Enter {
			if e.Pod != nil && e.Pod.Title() == c.Value || e.Pod != nil && e.Pod.ID == c.Value {
				other := e.Pod
				pod.UIDMap, pod.GIDMap, pod.UID, pod.GID = other.UIDMap, other.GIDMap, other.UID, other.GID
				pod.OneID, pod.KeepGroups = other.OneID, other.KeepGroups
			}
		}
	}
	return nil, nil
}

// ChooseMaps decides which ids are mapped: those that are asked for, else what this user may have. It writes that into pod.
func ChooseMaps(pod *pod.Pod, spec *spec.Spec, f *Facts) (warnings []error, err error) {
	switch {
	case len(spec.UIDMap)+len(spec.GIDMap) > 0:
		pod.UIDMap, pod.GIDMap = spec.UIDMap, spec.GIDMap
		if len(pod.UIDMap) == 0 {
			pod.UIDMap = pod.GIDMap
		}
		if len(pod.GIDMap) == 0 {
			pod.GIDMap = pod.UIDMap
		}
	case spec.KeepID:
		pod.UIDMap, pod.GIDMap = ids.KeepMap(f.UID, f.SubUIDs), ids.KeepMap(f.GID, f.SubGIDs)
		pod.UID, pod.GID = f.UID, f.GID
	case f.Root && f.NoRanges != "":
		return nil, fault.New(nil, append(f.RangesHint, "or name some: "+f.YourMap),
			"--userns new needs ids to map: %s", f.NoRanges)
	case f.Root:
		pod.UIDMap, pod.GIDMap = ids.RangeMap(f.SubUIDs), ids.RangeMap(f.SubGIDs)
	default:
		pod.UIDMap, pod.GIDMap = ids.RootMap(f.UID, f.SubUIDs), ids.RootMap(f.GID, f.SubGIDs)
	}
	if !spec.KeepID {
		pod.UID, pod.GID = ids.FirstID(pod.UIDMap), ids.FirstID(pod.GIDMap)
	}
	pod.OneID = !f.Root && ids.OnlyOwn(pod.UIDMap, f.UID) && ids.OnlyOwn(pod.GIDMap, f.GID)
	switch {
	case pod.OneID && f.NoRanges != "":
		warnings = append(warnings, fault.New(nil, f.RangesHint, "the pod has one id only: %s. Programs in it can't change to another user, "+
			"and your supplementary groups stay", f.NoRanges))
	case !pod.OneID && f.NewUIDMap && f.NoRanges != "":
		return nil, fault.New(nil, f.RangesHint, "these ids can't be mapped: %s", f.NoRanges)
	}
	return warnings, nil
}

// CheckRoot refuses a root file system that can't be completed.
func CheckRoot(pod *pod.Pod, f *Facts) error {
	source := pod.Spec.Rootfs
	if source.Kind != "dir" || pod.Namespaces["mnt"].Kind != "new" {
		return nil
	}
	for _, path := range MountPoints {
		if f.Dir.Missing[path] && source.Mode == "ro" {
			return fault.New(nil, []string{"--rootfs " + source.Dir + ":overlay makes it without changing the folder"},
				"rootfs %s has no %s to mount on, and is read-only", source.Dir, path)
		}
	}
	return nil
}

// WithoutRanges is what is left when the ranges turn out not to be usable; hints say what to do about that.
func (f *Facts) WithoutRanges(why string, hints []string) *Facts {
	g := f.Anew()
	g.SubUIDs, g.SubGIDs, g.NoRanges, g.RangesHint = nil, nil, why, hints
	return g
}

// Anew are the facts as they were before the root was looked at, which is to come once more.
func (f *Facts) Anew() *Facts {
	g := *f
	g.Masked, g.MaskedFiles, g.ReadOnly, g.Volumes, g.Mounts = nil, nil, nil, nil, nil
	g.Namespaces = maps.Clone(f.Namespaces)
	return &g
}
