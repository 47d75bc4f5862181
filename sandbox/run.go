package sandbox

import (
	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/sandbox/container"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/spec"
)

// ProposeContainer plans a container in the pod that is proposed.
func (p *Proposal) ProposeContainer(spec *spec.ContainerSpec, img *image.Image, layers []string) (plan.Plan, error) {
	c, err := container.PlanContainer(p.Pod, spec, img, layers)
	if err != nil {
		return nil, err
	}
	pod := &plan.Creation{Pod: p.Pod, Facts: p.facts}
	return container.PlanOf(c, pod.EtcFiles())
}
