package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/podsh/podsh/image"
)

// files are the files of a layout or of an archive.
type files interface {
	file(name string) (*io.SectionReader, io.Closer, error)
	close()
}

// layout is a source: an OCI image layout (image-spec, "image-layout.md") in a folder or in an archive.
type layout struct {
	files
	title  string // the source, as it was named
	base   string // how images are called that have only a tag
	tag    string // of the image that is meant; "" means all
	wanted wanted
}

// Annotations by which descriptors of index.json are named.
const (
	annotationName = "org.opencontainers.image.ref.name"
	annotationFull = "io.containerd.image.name" // docker's: there ref.name has the tag only
)

// folder is files below a folder; links that lead out of it are not followed.
type folder struct{ *os.Root }

func (f folder) file(name string) (*io.SectionReader, io.Closer, error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", name)
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return io.NewSectionReader(file, 0, info.Size()), file, nil
}

func (f folder) close() { f.Close() }

// splitTag cuts PATH[:TAG] where the path ends that is there. Both may have colons.
func splitTag(text string, is func(os.FileInfo) bool) (path, tag string) {
	for i := 0; i <= len(text); i++ {
		if i < len(text) && text[i] != ':' {
			continue
		}
		if info, err := os.Stat(text[:i]); err == nil && is(info) {
			return text[:i], strings.TrimPrefix(text[i:], ":")
		}
	}
	return text, ""
}

func openFolder(_ context.Context, p *pulling, rest string) (source, error) {
	path, tag := splitTag(rest, os.FileInfo.IsDir)
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, image.Fail(err, "oci:DIR[:TAG]", "no folder %q with images: %v", path, innermostPath(err))
	}
	l := &layout{folder{root}, path, baseName(path), tag, p.wanted}
	if _, err := root.Stat("index.json"); err != nil {
		root.Close()
		return nil, image.Fail(err, "an OCI image layout has one", "folder %q has no index.json", path)
	}
	return l, nil
}

// innermostPath is an error of a file without its path, which the words around it name.
func innermostPath(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// baseName makes a repository of the name of a file or a folder.
func baseName(path string) string {
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	name, _, _ := strings.Cut(strings.ToLower(filepath.Base(path)), ".")
	if _, err := image.ParseReference("localhost/" + name); err != nil {
		return "image"
	}
	return name
}

func (l *layout) read(name string) ([]byte, error) {
	r, c, err := l.file(name)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if r.Size() > image.MaxDocument {
		return nil, fmt.Errorf("%s has more than %d MB", name, image.MaxDocument>>20)
	}
	return io.ReadAll(r)
}

func blobName(digest string) string { return "blobs/sha256/" + strings.TrimPrefix(digest, "sha256:") }

func (l *layout) readBlob(d image.Descriptor) ([]byte, error) { return l.read(blobName(d.Digest)) }

// find lists the images of index.json: those that have the tag, or all. Where one name has several, the platform
// decides; of those without a name each is one.
func (l *layout) find(context.Context) ([]*found, error) {
	text, err := l.read("index.json")
	if err != nil {
		return nil, err
	}
	var index document
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, fmt.Errorf("malformed index.json: %w", err)
	}
	var order, there []string
	groups := map[string][]image.Descriptor{}
	for i, d := range index.Manifests {
		name := l.name(d)
		there = append(there, name)
		if !l.meant(d, name) {
			continue
		}
		if name == "" {
			name = fmt.Sprint("<none>", i)
		}
		if groups[name] == nil {
			order = append(order, name)
		}
		groups[name] = append(groups[name], d)
	}
	if len(order) == 0 {
		return nil, l.noImage(there)
	}
	var all []*found
	for _, name := range order {
		f, err := l.resolve(groups[name])
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(name, "<none>") {
			f.names = []string{name}
		}
		all = merge(all, f)
	}
	return all, nil
}

func (l *layout) noImage(there []string) error {
	there = slices.DeleteFunc(there, func(name string) bool { return name == "" })
	switch {
	case l.tag == "":
		return fmt.Errorf("there are no images")
	case len(there) == 0:
		return image.Fail(image.ErrNoImage, "name none", "no image %q in %q; they have no names", l.tag, l.title)
	}
	return image.Fail(image.ErrNoImage, "is it one of "+strings.Join(there, ", "), "no image %q in %q", l.tag, l.title)
}

// merge puts the names of an image together, which has a descriptor for each.
func merge(all []*found, f *found) []*found {
	for _, other := range all {
		if other.descriptor.Digest == f.descriptor.Digest {
			other.names = append(other.names, f.names...)
			return all
		}
	}
	return append(all, f)
}

func (l *layout) resolve(group []image.Descriptor) (*found, error) {
	d := group[0]
	if len(group) > 1 {
		var err error
		if d, err = l.wanted.choose(group); err != nil {
			return nil, err
		}
	}
	if err := image.CheckDigest(d.Digest, "a manifest in index.json"); err != nil {
		return nil, err
	}
	text, err := l.readBlob(d)
	if err != nil {
		return nil, err
	}
	if err := checkDocument(text, d); err != nil {
		return nil, err
	}
	return l.wanted.resolve(text, d.MediaType, l.readBlob)
}

// name is the whole name of an image. What is no more than a tag, as umoci has them, is one of this folder.
func (l *layout) name(d image.Descriptor) string {
	name := d.Annotations[annotationFull]
	if name == "" {
		name = d.Annotations[annotationName]
	}
	if name != "" && !strings.ContainsAny(name, "/:@") {
		name = "localhost/" + l.base + ":" + name
	}
	if ref, err := image.ParseReference(name); err == nil {
		return ref.String()
	}
	return ""
}

// meant says whether an image is the one that was asked for.
func (l *layout) meant(d image.Descriptor, name string) bool {
	if l.tag == "" || l.tag == d.Annotations[annotationName] || l.tag == name {
		return true
	}
	ref, err := image.ParseReference(l.tag)
	return err == nil && ref.String() == name
}

func (l *layout) open(_ context.Context, d image.Descriptor, from int64) (io.ReadCloser, int64, error) {
	r, c, err := l.file(blobName(d.Digest))
	if err != nil {
		return nil, 0, err
	}
	return rest(r, c, from)
}

// rest reads on from a byte.
func rest(r *io.SectionReader, c io.Closer, from int64) (io.ReadCloser, int64, error) {
	if _, err := r.Seek(min(from, r.Size()), io.SeekStart); err != nil {
		c.Close()
		return nil, 0, err
	}
	return struct {
		io.Reader
		io.Closer
	}{r, c}, from, nil
}

func (l *layout) again(error) bool { return false }

func (l *layout) retries(error) {}

func (l *layout) explain(err error) error { return explainFile(l.title, err) }

// explainFile puts an error of a folder or an archive into words.
func explainFile(title string, err error) error {
	var broken *brokenOff
	switch {
	case errors.Is(err, context.Canceled), hinted(err), is[*diskError](err):
		return err
	case is[*digestError](err), errors.As(err, &broken), errors.Is(err, io.ErrUnexpectedEOF):
		return image.Fail(err, "copy it once more, or write it anew", "images in %q are broken: %v", title, err)
	}
	return fmt.Errorf("images in %q: %w", title, err)
}
