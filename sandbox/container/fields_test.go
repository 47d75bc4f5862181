package container

import (
	"reflect"
	"testing"
	"time"

	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
)

// keptAside are the fields of a ContainerSpec that say nothing of what the container is or sees: whoever needs them reads
// them in the description.
var keptAside = map[string]string{
	"Listen":    "StartInPod gives the command its sockets",
	"Ulimits":   "plan.Container sets them",
	"Labels":    "inspect and ps show them, beside those of the image",
	"Restart":   "the supervisor restarts",
	"StopAfter": "stop waits as long",
	"TTY":       "whoever starts the container makes the terminal",
	"Stdin":     "whoever starts the container keeps it open",
	"Detached":  "the supervisor runs it",
	"Remove":    "whoever sees the end removes",
	"Image":     "the caller finds the image, and its layers are the root",
}

// notAContainers are the fields of a pod's Spec that a container has otherwise than by a copy.
var notAContainers = map[string]string{
	"Hostname":   "Pod.Hostname is what was decided",
	"Labels":     "the container has its own",
	"Namespaces": "Pod.Namespaces is what was decided",
	"Net":        "the network is the pod's; one of its own has nothing but a loopback",
	"Clocks":     "the time namespace is the pod's",
	"UIDMap":     "Pod.UIDMap is what was decided",
	"GIDMap":     "Pod.GIDMap is what was decided",
	"KeepID":     "Pod.UIDMap is what was decided",
}

// samples are values for those fields that fill can't make.
var samples = map[string]any{
	"Private":    []string{"uts"},
	"Entrypoint": new("other"),
	"StopAfter":  new(time.Second),
}

func fill(t *testing.T, name string, field reflect.Value) {
	t.Helper()
	if sample, ok := samples[name]; ok {
		field.Set(reflect.ValueOf(sample))
		return
	}
	switch field.Kind() {
	case reflect.String:
		field.SetString("/other")
	case reflect.Bool:
		field.SetBool(true)
	case reflect.Int:
		field.SetInt(12)
	case reflect.Slice:
		field.Set(reflect.MakeSlice(field.Type(), 1, 1))
		fill(t, "", field.Index(0))
	case reflect.Map:
		field.Set(reflect.MakeMap(field.Type()))
		field.SetMapIndex(reflect.ValueOf("key"), reflect.ValueOf("value"))
	case reflect.Struct:
		for i := range field.NumField() {
			if inner := field.Field(i); inner.Kind() == reflect.String {
				inner.SetString("other")
			}
		}
	default:
		t.Fatalf("no sample for %s, which is a %v", name, field.Type())
	}
}

// TestNoFieldIsLost: whatever is asked for of a container changes what it is or how it sees its pod, or somebody is named
// who reads it elsewhere.
func TestNoFieldIsLost(t *testing.T) {
	seen := func(s spec.ContainerSpec) []any {
		c, err := newContainer(&pod.Pod{ID: "0123456789ab", Root: t.TempDir()}, &s, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.ID, c.Created, c.In.Root = "ba9876543210", time.Time{}, ""
		view := View(c)
		c.Spec = spec.ContainerSpec{} // the copy itself counts for nothing
		return []any{c, view}
	}
	plain := spec.ContainerSpec{Rootfs: rootfs.Source{Kind: "dir", Dir: "/plain", Mode: "ro"}, Command: []string{"plain"}}
	kind := reflect.TypeFor[spec.ContainerSpec]()
	for i := range kind.NumField() {
		name := kind.Field(i).Name
		s := plain
		fill(t, name, reflect.ValueOf(&s).Elem().Field(i))
		honoured := !reflect.DeepEqual(seen(s), seen(plain))
		if reason, aside := keptAside[name]; honoured == aside {
			t.Errorf("ContainerSpec.%s: changes the container: %v; kept aside: %q", name, honoured, reason)
		}
		delete(keptAside, name)
	}
	for name := range keptAside {
		t.Errorf("a ContainerSpec has no %s", name)
	}
}

// TestViewKnowsEveryField: a container's view of its pod has each field of a pod's Spec, or a reason why not.
func TestViewKnowsEveryField(t *testing.T) {
	s := spec.ContainerSpec{}
	from, kind := reflect.ValueOf(&s).Elem(), reflect.TypeFor[spec.Spec]()
	for i := range from.NumField() {
		fill(t, from.Type().Field(i).Name, from.Field(i))
	}
	c := &pod.Container{In: &pod.Pod{ID: "0123456789ab"}, Spec: s, Name: s.Name, Env: s.Env, Root: s.Rootfs}
	view := reflect.ValueOf(View(c).Spec)
	for i := range kind.NumField() {
		name := kind.Field(i).Name
		if _, otherwise := notAContainers[name]; view.Field(i).IsZero() != otherwise {
			t.Errorf("Spec.%s: the view has %v; reason why it has none: %q", name, view.Field(i), notAContainers[name])
		}
		delete(notAContainers, name)
	}
	for name := range notAContainers {
		t.Errorf("a Spec has no %s", name)
	}
}

// TestOneRoot: of two roots one would be lost.
func TestOneRoot(t *testing.T) {
	folder := rootfs.Source{Kind: "dir", Dir: "/plain", Mode: "ro"}
	for _, s := range []spec.ContainerSpec{{Image: "busybox", Rootfs: folder}, {}} {
		if err := s.Validate(); err == nil {
			t.Errorf("%+v was taken", s)
		}
	}
	if err := (&spec.ContainerSpec{Rootfs: folder}).Validate(); err != nil {
		t.Error(err)
	}
}
