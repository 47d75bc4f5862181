package sandbox

import (
	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/sandbox/container"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/step"
)

// ProposeContainer plans a container in the pod that is proposed.
func (p *Proposal) ProposeContainer(spec *spec.ContainerSpec, img *image.Image, layers []string) (step.Plan, error) {
	c, err := container.PlanContainer(p.Pod, spec, img, layers)
	if err != nil {
		return nil, err
	}
	pod := &plan.Creation{Pod: p.Pod, Facts: p.facts}
	return container.PlanOf(c, pod.EtcFiles())
}
