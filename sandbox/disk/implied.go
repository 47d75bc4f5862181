package disk

import (
	"archive/tar"
	"bytes"
	"path/filepath"
	"time"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
)

// corrected puts a layer above the others where an overlay of them would show folders otherwise than they are meant: those
// that a layer has without a word about them (image.Stack).
func corrected(p *pod.Pod, store *image.Store, layers []string) ([]string, error) {
	stack, err := image.NewStack(layers)
	if err != nil {
		return nil, err
	}
	wrong := stack.Wrong()
	if len(wrong) == 0 {
		return layers, nil
	}
	var text bytes.Buffer
	w := tar.NewWriter(&text)
	for _, name := range image.Names(wrong) {
		folder := inside(p, wrong[name])
		h := &tar.Header{Typeflag: tar.TypeDir, Name: name[1:] + "/", Mode: int64(folder.Mode), Uid: int(folder.UID), Gid: int(folder.GID),
			ModTime: time.Unix(folder.Modified.Unix()), Format: tar.FormatPAX}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := store.PutLayer(text.Bytes())
	if err == nil {
		err = UnpackLayer(p, store, layer, func(image.Event) {})
	}
	return append(layers, store.LayerPath(p.MapName(), layer)), err
}

// inside is a folder of an unpacked layer as the pod counts ids.
func inside(p *pod.Pod, f image.Folder) image.Folder {
	if p.MapName() == "host" {
		return f
	}
	for _, id := range []struct {
		id  *uint32
		ids []ids.Map
	}{{&f.UID, p.UIDMap}, {&f.GID, p.GIDMap}} {
		if inside, ok := ids.Translate(id.ids, *id.id, false); ok {
			*id.id = inside
		}
	}
	return f
}

// ImageRoot is what an image says of its root, whose layers these are; nil, where it says nothing.
func ImageRoot(p *pod.Pod, layers []string) (*plan.RootFacts, error) {
	if len(layers) == 0 || filepath.Base(filepath.Dir(layers[0])) != p.MapName() {
		return nil, nil // a folder of somebody's
	}
	stack, err := image.NewStack(layers)
	if err != nil {
		return nil, err
	}
	root, ok := stack.Root()
	if !ok {
		return nil, nil
	}
	root = inside(p, root)
	return &plan.RootFacts{Mode: root.Mode, UID: root.UID, GID: root.GID}, nil
}
