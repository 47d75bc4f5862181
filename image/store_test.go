package image

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func digestOf(text []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(text)) }

func newStore(t *testing.T) *Store {
	t.Helper()
	store, err := Open(filepath.Join(t.TempDir(), "a", "store"))
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// put puts a blob into a store.
func put(t *testing.T, s *Store, text []byte) Descriptor {
	t.Helper()
	d := Descriptor{Digest: digestOf(text), Size: int64(len(text))}
	if err := os.WriteFile(s.BlobPath(d.Digest), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

// newImage puts an image into a store, under names: one layer for each of the texts.
func newImage(t *testing.T, s *Store, command string, names []string, from Origin, texts ...string) *Image {
	t.Helper()
	var m manifest
	var c configuration
	c.OS, c.Architecture, c.Config.Cmd = "linux", "amd64", []string{command}
	for _, text := range texts {
		m.Layers = append(m.Layers, put(t, s, []byte(text)))
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digestOf([]byte("diff of "+text)))
	}
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	m.Config = put(t, s, config)
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	d := put(t, s, text)
	if len(names) == 0 {
		names = []string{""}
	}
	var img *Image
	for _, name := range names {
		if img, err = s.Add(d, name, from); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

const (
	webName = "docker.io/library/web:1"
	topName = "docker.io/library/web:latest"
)

func TestFind(t *testing.T) {
	s := newStore(t)
	index, registry := "sha256:"+strings.Repeat("1", 64), "sha256:"+strings.Repeat("2", 64)
	web := newImage(t, s, "web", []string{webName, topName}, Origin{Index: index}, "a", "b")
	other := newImage(t, s, "other", nil, Origin{Digest: registry}, "a")
	for _, c := range []struct {
		ref  string
		want *Image
	}{
		{"web", web}, {"web:1", web}, {webName, web}, {"docker.io/web", web}, {"web@" + web.Digest, web}, {"web@" + index, web}, {"web:1@" + index, web},
		{web.ID, web}, {web.ID[7:12], web}, {web.ShortID(), web}, {web.Digest, web}, {web.Digest[:15], web},
		{other.ID, other}, {registry, other}, {"2222", other},
		{"web:2", nil}, {"wbe", nil}, {"nowhere/web", nil}, {"web@" + registry, nil}, {web.ID[7:10], nil}, {"sha256:", nil}, {"", nil}, {"../web", nil},
	} {
		img, err := s.Find(c.ref)
		if c.want == nil {
			var hinted interface{ Hints() []string }
			if !errors.Is(err, ErrNoImage) || !errors.As(err, &hinted) {
				t.Errorf("%q: %v, %v", c.ref, img, err)
			}
		} else if err != nil || img.ID != c.want.ID || !slices.Equal(img.Names, c.want.Names) {
			t.Errorf("%q: %+v, %v", c.ref, img, err)
		}
	}
	if web.Title() != "web:1" || other.Title() != other.ShortID() || web.Config.Cmd[0] != "web" || len(web.Layers) != 2 || other.Digest != registry {
		t.Errorf("%+v %+v", web, other)
	}
	if _, d, err := s.Manifest(other); err != nil || d.Digest == registry || d.Digest == "" {
		t.Error(d, err)
	}
}

// TestAmbiguous: ids that begin alike are told apart, or not found.
func TestAmbiguous(t *testing.T) {
	s := newStore(t)
	for i := range 2 {
		newImage(t, s, fmt.Sprint(i), nil, Origin{Digest: fmt.Sprintf("sha256:abcd%060d", i)})
	}
	if _, err := s.Find("abcd"); !errors.Is(err, ErrNoImage) || !strings.Contains(err.Error(), "could mean") {
		t.Error(err)
	}
	if _, err := s.Find(fmt.Sprintf("abcd%060d", 1)); err != nil {
		t.Error(err)
	}
}

// TestAnotherWay: an image that comes by its registry and by an archive is one.
func TestAnotherWay(t *testing.T) {
	docker := "sha256:" + strings.Repeat("2", 64)
	for _, origins := range [][]Origin{{{Digest: docker}, {}}, {{}, {Digest: docker}}} {
		s := newStore(t)
		first := newImage(t, s, "a", []string{webName}, origins[0], "a")
		second := newImage(t, s, "a", []string{webName}, origins[1], "a")
		if second.Digest != first.Digest || len(names(t, s)) != 1 {
			t.Errorf("%v: %s and %s", origins, first.Digest, second.Digest)
		}
		if _, err := s.Find("web@" + docker); err != nil {
			t.Error(origins, err)
		}
	}
}

// names tells what each image is called.
func names(t *testing.T, s *Store) map[string][]string {
	t.Helper()
	images, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, img := range images {
		all[img.Config.Cmd[0]] = img.Names
	}
	return all
}

func TestNames(t *testing.T) {
	s := newStore(t)
	a := newImage(t, s, "a", []string{webName}, Origin{}, "a")
	b := newImage(t, s, "b", nil, Origin{}, "b")
	for _, step := range []struct {
		name string
		do   func() error
		want string
	}{
		{"as they are", func() error { return nil }, "map[a:[docker.io/library/web:1] b:[]]"},
		{"one more", func() error { return s.Tag(a, topName) }, "map[a:[docker.io/library/web:1 docker.io/library/web:latest] b:[]]"},
		{"taken from another", func() error { return s.Tag(b, webName) }, "map[a:[docker.io/library/web:latest] b:[docker.io/library/web:1]]"},
		{"the last taken", func() error { return s.Tag(b, topName) }, "map[a:[] b:[docker.io/library/web:1 docker.io/library/web:latest]]"},
		{"given up", func() error { return s.Untag(webName) }, "map[a:[] b:[docker.io/library/web:latest]]"},
		{"the last given up", func() error { return s.Untag(topName) }, "map[a:[] b:[]]"},
		{"given up again", func() error { return s.Untag(topName) }, "map[a:[] b:[]]"},
	} {
		if err := step.do(); err != nil {
			t.Fatal(step.name, err)
		}
		if got := fmt.Sprint(names(t, s)); got != step.want {
			t.Errorf("%s: %s, not %s", step.name, got, step.want)
		}
	}
	all, err := s.readIndex()
	if err != nil || len(all.Manifests) != 2 {
		t.Error(all, err) // one descriptor each, without a name
	}
	if err := s.Remove(a, given(use(nil))); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(a, webName); !errors.Is(err, ErrNoImage) {
		t.Error("tag of one that is gone: ", err)
	}
}

// TestTogether: many that change the index lose nothing of each other's.
func TestTogether(t *testing.T) {
	s := newStore(t)
	img := newImage(t, s, "a", nil, Origin{}, "a")
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			own, err := Open(s.Path)
			if err == nil {
				err = own.Tag(img, fmt.Sprintf("docker.io/library/web:%d", i))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := names(t, s)["a"]; len(got) != 20 {
		t.Error(got)
	}
	if got := fmt.Sprint(files(t, s)); got != "[blobs index.json layers lock oci-layout partial]" {
		t.Error(got)
	}
}

func TestOpen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil || !strings.Contains(err.Error(), "store of images") {
		t.Error(err)
	}
	if os.Geteuid() == 0 {
		other := filepath.Join(t.TempDir(), "other")
		if err := errors.Join(os.Mkdir(other, 0o777), os.Chown(other, 1234, 1234)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(other); err == nil || !strings.Contains(err.Error(), "belongs to uid 1234") {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(other, "partial")); !errors.Is(err, fs.ErrNotExist) {
			t.Error("somebody else's folder was changed: ", err)
		}
	}
	s := newStore(t)
	if info, err := os.Stat(s.Path); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info.Mode(), err)
	}
	if err := os.WriteFile(s.path("index.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(); err == nil || !strings.Contains(err.Error(), "index of images") {
		t.Error(err)
	}
}

// given is a use that does not change.
func given(u *Use) Usage { return func() (*Use, error) { return u, nil } }
