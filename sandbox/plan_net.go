package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/machine"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
	"github.com/podsh/podsh/sandbox/wire"
)

// readNet looks at the networks that a spec names, and makes the hub where they are, but for a dry run.
// release lets the hub go again; after an error there is nothing to let go.
func readNet(s *store.Store, spec *spec.Spec, o Options) (facts plan.NetFacts, release func(), err error) {
	facts.IPv6 = files.Exists("/proc/sys/net/ipv6")
	release = func() {}
	facts.OnHost = wire.NetworksOnHost()
	if facts.Networks, err = s.NetworksNamed(spec.Net.Networks...); err != nil || !spec.Net.OnNetworks() {
		return facts, release, err
	}
	if o.DryRun {
		facts.Hub, err = s.Hub()
	} else {
		facts.Hub, release, err = useHub(s)
	}
	if err != nil {
		return facts, nil, err
	}
	if err := lookAround(s, &facts, spec, o); err != nil {
		release()
		return facts, nil, err
	}
	return facts, release, nil
}

// lookAround looks at the networks once more, now that none can be removed, and at what they allow.
func lookAround(s *store.Store, facts *plan.NetFacts, spec *spec.Spec, o Options) (err error) {
	if facts.Networks, err = s.NetworksNamed(spec.Net.Networks...); err != nil {
		return err
	}
	if facts.Hub != nil {
		facts.OnHost = !facts.Hub.Own("net")
	}
	facts.OnlyIPv6 = plan.OnlyIPv6(facts.Networks)
	for _, n := range facts.Networks {
		endpoint := spec.Net.Endpoints[n.Name]
		if err := endpoint.On(n); err != nil {
			return err
		}
		if on, perr := s.PodsOn(n.Name); o.DryRun && perr == nil && len(on) == 0 {
			facts.Unmade = n.Name
		}
	}
	if facts.OnHost && spec.Net.HostAccess {
		return fault.New(nil, []string{"--net outbound --host-access, or let the service listen on the network's gateway"},
			"--host-access does not go with root's networks: they are on the host, and no helper stands between")
	}
	return nil
}

// enterHub: the user namespace of a pod on networks is a child of the hub's.
func enterHub(f *plan.Facts, e *machine.Entrances) error {
	hub := f.Net.Hub
	if hub == nil || !hub.Own("user") {
		return nil
	}
	pidfd, err := store.Open(hub)
	if err != nil {
		return err
	}
	// What the hub has is what there is, whatever /etc/subuid says by now.
	f.SubUIDs, f.SubGIDs = ids.RangesOf(hub.UIDMap), ids.RangesOf(hub.GIDMap)
	if hub.OneID && f.NoRanges == "" {
		f.NoRanges = "the hub of networks was made with one"
	}
	e.Pod(f, pidfd, plan.Entrance{Flags: unix.CLONE_NEWUSER, What: "the hub that its networks are in", Pod: hub,
		Cmd: fmt.Sprintf("--target %d --user --preserve-credentials", hub.Holder.PID)})
	return nil
}
