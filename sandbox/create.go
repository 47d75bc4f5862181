package sandbox

import (
	"cmp"
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/disk"
	"github.com/podsh/podsh/sandbox/doctor"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/machine"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/step"
	"github.com/podsh/podsh/sandbox/store"
)

// Proposal is a pod that could be made, and the plan to make it.
type Proposal struct {
	Pod      *pod.Pod
	Plan     step.Plan
	Warnings []error // what is lost, with hints

	facts *plan.Facts
	held  *held
	store *store.Store
	exe   plan.ExeKind
	run   *performance // that has begun
}

// held is what facts speak of, and what has to stay as it is until the pod is made or given up.
type held struct {
	entrances  machine.Entrances
	releaseHub func()
}

// close lets go of it, once.
func (h *held) close() {
	h.entrances.Close()
	if h.releaseHub != nil {
		h.releaseHub()
	}
	*h = held{}
}

// Options say what a plan is for.
type Options struct {
	Detailed bool   // it will be shown
	DryRun   bool   // and not carried out
	hub      bool   // it will be the hub
	id       string // that it will have; else a new one

	sharedKeyring bool // it has none of its own
}

// Propose reads the facts and plans a pod. But for a dry run, the plan's first steps are under way when it
// returns: the kernel needs a while for new namespaces, and podsh for the facts. Close the proposal.
func Propose(spec *spec.Spec, s *store.Store, o Options) (proposal *Proposal, err error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if spec.Name != "" {
		if id := s.Named(spec.Name); id != "" {
			return nil, store.NameTaken(spec.Name, id)
		}
	}
	defer func() {
		if err != nil && spec.Net.OnNetworks() && !o.DryRun {
			_ = ReleaseHub(s) // it may have been made for this pod alone; if not, rm of the last pod will
		}
	}()
	held := &held{}
	defer func() {
		if err != nil {
			held.close()
		}
	}()
	nets, release, err := readNet(s, spec, o)
	if err != nil {
		return nil, err
	}
	held.releaseHub = release
	facts, entrances, err := machine.ReadFacts(spec, s)
	if err != nil {
		return nil, err
	}
	facts.Net, held.entrances = nets, entrances
	if other := facts.Entered(spec.Namespaces["net"].Value); other != nil { // its networks are not named here
		shared, _ := s.NetworksNamed(other.Spec.Net.Networks...) // one that is gone says nothing
		facts.Net.OnlyIPv6 = plan.OnlyIPv6(shared)
	}
	if err := enterHub(facts, &held.entrances); err != nil {
		return nil, err
	}
	return propose(spec, s, facts, held, o)
}

func propose(spec *spec.Spec, s *store.Store, facts *plan.Facts, held *held, o Options) (*Proposal, error) {
	pod, warnings, err := plan.Resolve(spec, facts, cmp.Or(o.id, store.NewID()))
	if err != nil {
		return nil, err
	}
	if err := machine.CheckHeld(spec.CapAdd, machine.JoinerHolds(pod)); err != nil {
		return nil, err
	}
	pod.Root, pod.IsHub, pod.Keyring = s.Path, o.hub, keyringName(pod, o.sharedKeyring)
	if facts.Net.Hub != nil {
		pod.Hub = facts.Net.Hub.ID
	}
	pod.Upper = disk.UpperDir(pod, facts)
	exe := chooseExe(pod, facts)
	pod.OwnFile = exe != plan.ExePlain
	p := &Proposal{Pod: pod, Warnings: warnings, facts: facts, held: held, store: s, exe: exe}
	start := plan.Start(pod, facts, exe)
	if !o.DryRun {
		p.run = &performance{Proposal: p}
		err := p.run.beginNet()
		if err == nil {
			err = p.run.begin(start.Steps)
		}
		if err != nil {
			p.Close()
			return nil, err
		}
	}
	err = machine.ReadRootFacts(facts, spec, o.Detailed)
	if err == nil {
		facts.Dir.Root, err = disk.ImageRoot(pod, spec.Rootfs.Layers)
	}
	if err == nil {
		err = plan.CheckRoot(pod, facts)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	p.Plan = start.Rest()
	return p, nil
}

// Close undoes what has begun and was not finished by Create.
func (p *Proposal) Close() {
	unfinished := p.run != nil && len(p.run.undo) > 0
	if p.run != nil {
		p.run.undoAll()
		p.run = nil
	}
	p.held.close()
	if unfinished && p.Pod.Hub != "" {
		_ = ReleaseHub(p.store) // it may have been made for this pod alone; if not, rm of the last pod will
	}
}

// chooseExe decides how podsh's file is kept out of the pod's reach.
func chooseExe(pod *pod.Pod, f *plan.Facts) plan.ExeKind {
	uids := pod.UIDMap
	if pod.Namespaces["user"].Kind == "host" {
		uids = []ids.Map{{Inside: 0, Outside: 0, Count: 1<<32 - 1}}
	}
	known := pod.Namespaces["user"].Kind != "path"
	switch {
	case known && !f.Exe.Reachable(uids):
		return plan.ExePlain
	case pod.Own("mnt") && f.Exe.Path != "" && f.Kernel.AtLeast(5, 12):
		return plan.ExeMount
	}
	return plan.ExeMemfd
}

// Script writes the plan as a script in plain sh.
func (p *Proposal) Script(w io.Writer) error { return plan.Script(w, p.Pod, p.facts, p.Plan) }

// Create makes a pod as proposed. Where newuidmap turns out not to work, it makes one with a single id, and where no key
// is left for a keyring of its own, one that shares that; and warns.
func (p *Proposal) Create() (pod *pod.Pod, warnings []error, err error) {
	defer p.Close()
	err = p.run.perform()
	var refused *perform.IdsRefused
	switch {
	case errors.As(err, &refused) && len(p.Pod.Spec.UIDMap)+len(p.Pod.Spec.GIDMap) == 0:
		return p.again(p.facts.WithoutRanges(refused.Error(), doctor.HintsFor("newuidmap", unix.EPERM)), Options{})
	case p.run.noKeys && p.Pod.Keyring != plan.ThreadKeyring:
		pod, warnings, err = p.again(p.facts.Anew(), Options{sharedKeyring: true})
		return pod, append(warnings, fault.New(nil, doctor.HintsFor("keyctl", unix.EDQUOT), "no key is left for a keyring of the pod's own: it shares one with others that were made so")), err
	}
	return p.Pod, p.Warnings, err
}

// again makes the pod in another way.
func (p *Proposal) again(facts *plan.Facts, o Options) (*pod.Pod, []error, error) {
	p.run.undoAll()
	o.hub, o.id = p.Pod.IsHub, p.Pod.ID
	again, err := propose(&p.Pod.Spec, p.store, facts, p.held, o)
	if err != nil {
		return nil, nil, err
	}
	defer again.Close()
	return again.Pod, again.Warnings, again.run.perform()
}
