package disk

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/image/program"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/machine"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
)

// OpenImages opens the user's store of images.
func OpenImages() (*image.Store, error) {
	path := filepath.Join(store.DataFolder(uint32(os.Geteuid())), "podsh", "images")
	if err := store.CheckWay(path); err != nil {
		return nil, fmt.Errorf("images in %s: %w", path, err)
	}
	return image.Open(path)
}

// LayersFor makes sure that the layers of an image are unpacked for the pod, and returns where, the lowest first. One that an
// image has twice, as buildkit's empty ones, is there once: an overlay refuses to have a folder twice, and what the topmost
// has, has the last word. tell hears how far that has got; it is called by several at a time.
func LayersFor(p *pod.Pod, store *image.Store, img *image.Image, tell func(image.Event)) ([]string, error) {
	if p.Namespaces["user"].Kind == "path" {
		return nil, fault.New(nil, []string{"podsh create without --userns path:FILE"}, "pod %q has ids that podsh does not know, so nothing can be unpacked for it", p.Title())
	}
	paths, missing := []string{}, []image.Layer{}
	for _, layer := range slices.Backward(img.Layers) {
		path := store.LayerPath(p.MapName(), layer)
		if slices.Contains(paths, path) {
			continue
		}
		paths = append(paths, path)
		if !store.HasLayer(p.MapName(), layer) {
			missing = append(missing, layer)
		}
	}
	slices.Reverse(paths)
	room := make(chan struct{}, runtime.NumCPU())
	errs := make([]error, len(missing))
	var group sync.WaitGroup
	for i, layer := range missing {
		group.Go(func() {
			room <- struct{}{}
			errs[i] = UnpackLayer(p, store, layer, tell)
			<-room
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return corrected(p, store, paths)
}

// Where unpacking a layer stops: what is more is no layer, but an attack.
const (
	mostLayerBytes   = 64 << 30
	mostLayerEntries = 4 << 20
	leastFree        = 64 << 20 // bytes that are left on the disk
)

// UnpackLayer unpacks a layer for pods with these ids, unless it is there.
func UnpackLayer(p *pod.Pod, store *image.Store, layer image.Layer, tell func(image.Event)) error {
	fresh, err := store.NewLayer(p.MapName(), layer, func(dir string) error { return removeTree(p, dir) })
	if fresh == nil || err != nil {
		return err
	}
	blob, err := os.Open(store.BlobPath(layer.Digest))
	if err == nil {
		defer blob.Close()
		err = GiveToRoot(p, fresh.Dir)
	}
	if err == nil {
		var implied []string
		err = unpack(p, blob, fresh.Dir, &layer, func(event image.Event) {
			if event.Implied != nil {
				implied = event.Implied
			} else {
				tell(event)
			}
		})
		if err == nil {
			err = fresh.SaveImplied(implied)
		}
	}
	if err != nil {
		return errors.Join(err, fresh.Discard())
	}
	return fresh.Commit()
}

// removeTree removes a folder whose files belong to ids of the pod's.
func removeTree(p *pod.Pod, dir string) error {
	lost := pod.Pod{Upper: dir, UIDMap: p.UIDMap, GIDMap: p.GIDMap, OneID: p.OneID}
	return RemoveUpper(&lost)
}

// converse sends the program of images a request, and hears what it tells, to the end.
func converse(conn *os.File, request *image.Request, tell func(image.Event)) ([]*image.Image, error) {
	text, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(text, '\n')); err != nil {
		return nil, fmt.Errorf("send a request to the program of images: %w", err)
	}
	in := bufio.NewScanner(conn)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var event image.Event
		if err := json.Unmarshal(in.Bytes(), &event); err != nil {
			return nil, fmt.Errorf("what the program of images said: %w", err)
		}
		switch {
		case event.Error != "":
			var hints []string
			if event.Hint != "" {
				hints = []string{event.Hint}
			}
			return nil, fault.New(nil, hints, "%s", event.Error)
		case event.Finished:
			return event.Images, nil
		default:
			tell(event)
		}
	}
	return nil, fault.New(nil, []string{"was it killed, or is memory short?"}, "the program of images ended without a word")
}

// AskImages runs the program of images on the host, with our own environment: it speaks with registries, and reads and
// writes images of other forms.
func AskImages(request *image.Request, in, out *os.File, tell func(image.Event)) ([]*image.Image, error) {
	file, err := perform.InMemory(program.Open())
	if err != nil {
		return nil, err
	}
	defer file.Close()
	ours, theirs, err := proc.Stream()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	runtime.LockOSThread() // it ends with the thread that started it
	defer runtime.UnlockOSThread()
	process, err := os.StartProcess("/proc/self/fd/4", []string{program.Name}, &os.ProcAttr{ // the last, see nsenter.StartFile
		Env: os.Environ(), Files: []*os.File{in, out, os.Stderr, theirs, file}, Sys: &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}})
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("start the program of images: %w", err)
	}
	images, err := converse(ours, request, tell)
	if err != nil {
		ours.Close()
	}
	_, waitErr := process.Wait()
	return images, errors.Join(err, waitErr)
}

// UsualLayers are where the layers of an image lie for such pods, the lowest first; those that are missing are unpacked.
func UsualLayers(store *image.Store, img *image.Image, tell func(image.Event)) ([]string, error) {
	p, err := usualPod()
	if err != nil {
		return nil, err
	}
	return LayersFor(p, store, img, tell)
}

// ImageUse says which images and layers the containers of this user have.
func ImageUse(s *store.Store) (*image.Use, error) {
	use := &image.Use{Images: map[string][]string{}, Layers: map[string]bool{}, Remove: removeLayer}
	pods, err := s.List()
	if err != nil {
		return nil, err
	}
	for _, p := range pods {
		for _, layer := range p.Spec.Rootfs.Layers {
			use.Layers[layer] = true
		}
		containers, err := store.Containers(p)
		if err != nil {
			return nil, err
		}
		for _, c := range containers {
			if c.Broken != nil {
				return nil, c.Broken // nobody knows what it has
			}
			if c.Image.Digest != "" {
				use.Images[c.Image.Digest] = append(use.Images[c.Image.Digest], c.Title())
			}
			for _, layer := range c.Root.Layers {
				use.Layers[layer] = true
			}
		}
	}
	return use, nil
}

// removeLayer removes an unpacked layer. Its files may belong to any of the ids that this user can map.
func removeLayer(dir string) error {
	p, err := usualPod()
	if err != nil {
		return err
	}
	return removeTree(p, dir)
}

// usualPod is a pod with the ids that one has of which nothing else is said.
func usualPod() (*pod.Pod, error) {
	f := &plan.Facts{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Kernel: machine.KernelVersion()}
	f.Root = f.UID == 0 && perform.HasCapability(capability.CAP_SYS_ADMIN)
	p := &pod.Pod{Namespaces: map[string]spec.Choice{"user": {Kind: "host"}}}
	if f.Root {
		return p, nil
	}
	if err := machine.ReadIDs(f, &p.Spec); err != nil {
		return nil, err
	}
	p.Namespaces["user"] = spec.Choice{Kind: "new"}
	_, err := plan.ChooseMaps(p, &p.Spec, f)
	p.KeepGroups = p.OneID || f.NoSetgroups
	return p, err
}

// UnpackUsually unpacks a layer for pods of which nothing special is asked.
func UnpackUsually(store *image.Store, layer image.Layer, tell func(image.Event)) error {
	p, err := usualPod()
	if err != nil {
		return err
	}
	return UnpackLayer(p, store, layer, tell)
}
