package sandbox

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/spec"
)

// TestManyLayers: a root of as many layers as the kernel takes can be told to mount(2), which takes a page of options.
func TestManyLayers(t *testing.T) {
	var layers []string
	for range 500 {
		layers = append(layers, "/home/ada/.local/share/podsh/images/layers/0-1000-1_1-100000-65536/"+strings.Repeat("5a", 32))
	}
	f := machineFacts()
	pod, _, err := plan.Resolve(&spec.Spec{Rootfs: rootfs.Layers(layers)}, f, "0123456789ab")
	if err != nil {
		t.Fatal(err)
	}
	plan := plan.Create(pod, f, plan.ExePlain)
	if _, err := nsenter.Encode(plan.Calls(), 0); err != nil {
		t.Error(err)
	}
	mounted := false
	for _, step := range plan {
		if step.Call.Nr != unix.SYS_MOUNT || step.Call.Args[0] != "overlay" {
			continue
		}
		mounted = true
		options := step.Call.Args[4].(string)
		if len(options) >= 4096 || strings.Count(options, ":") != 499 {
			t.Errorf("%d bytes of options, %d layers", len(options), strings.Count(options, ":")+1)
		}
	}
	if !mounted {
		t.Error("there is no overlay")
	}
}
