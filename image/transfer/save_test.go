package transfer

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/podsh/podsh/image"
)

// TestSave: what is written is read again, here and by skopeo, and is the same image.
func TestSave(t *testing.T) {
	store := newStore(t)
	web, err := importTar(t, store, tarOf(t, "a", "web"), webName)
	if err != nil {
		t.Fatal(err)
	}
	other, err := importTar(t, store, gzipOf(t, tarOf(t, "a", "other")), otherName)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"oci", "oci-archive", "docker-archive"} {
		t.Run(format, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "out:1") // a name that skopeo would not like, but we do
			if format != "oci" {
				file = filepath.Join(t.TempDir(), "out.tar")
			} else {
				file = strings.TrimSuffix(file, ":1")
			}
			images, err := Save(context.Background(), store, &image.Request{Images: []string{"web:1", other.ShortID(), otherName}, Format: format, File: file}, (&heard{}).tell)
			if err != nil || len(images) != 2 {
				t.Fatal(images, err)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); len(left) > 0 {
				t.Error("left: ", left)
			}
			again := newStore(t)
			got, err := Pull(context.Background(), again, &image.Request{Source: format + ":" + file}, (&heard{}).tell)
			if err != nil || len(got) != 2 || got[0].Digest != web.Digest || got[1].Digest != other.Digest || !slices.Equal(got[1].Names, []string{otherName}) {
				t.Fatalf("read again: %+v %v", got, err)
			}
			one, _, err := pull(t, newStore(t), format+":"+file+":web:1")
			if err != nil || one.Digest != web.Digest {
				t.Error("one of it: ", one, err)
			}
			_, _, err = pull(t, newStore(t), format+":"+file+":wbe:1")
			wantError(t, err, `no image "wbe:1" in`)
			target := filepath.Join(t.TempDir(), "copy")
			if out, err := exec.Command("skopeo", "copy", format+":"+file+":"+webName, "oci:"+target+":x").CombinedOutput(); err != nil {
				t.Fatalf("skopeo: %v\n%s", err, out)
			}
			copied, _, err := pull(t, newStore(t), "oci:"+target+":x")
			if err != nil || copied.ID != web.ID || copied.Names[0] != "localhost/copy:x" {
				t.Errorf("what skopeo has of it: %+v %v", copied, err)
			}
		})
	}
}

// TestSaveZstd: docker-archive has no layers of zstd, which skopeo and older dockers can't read there.
func TestSaveZstd(t *testing.T) {
	store := newStore(t)
	img, err := importTar(t, store, zstdOf(t, tarOf(t, "a", strings.Repeat("web", 1000))), webName)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "out.tar")
	if _, err := Save(context.Background(), store, &image.Request{Images: []string{"web:1"}, Format: "docker-archive", File: file}, (&heard{}).tell); err != nil {
		t.Fatal(err)
	}
	again, _, err := pull(t, newStore(t), "docker-archive:"+file)
	if err != nil || again.ID != img.ID || again.Layers[0].Digest != img.Layers[0].DiffID || again.Layers[0].MediaType != ociTar || again.Names[0] != webName {
		t.Errorf("%+v %v", again, err)
	}
	if out, err := exec.Command("skopeo", "copy", "docker-archive:"+file, "oci:"+filepath.Join(t.TempDir(), "copy")+":x").CombinedOutput(); err != nil {
		t.Errorf("skopeo: %v\n%s", err, out)
	}
}

// TestFolderStays: a layout that has images keeps them, and a folder with something else is left alone.
func TestFolderStays(t *testing.T) {
	store := newStore(t)
	for i, ref := range []string{webName, otherName} {
		if _, err := importTar(t, store, tarOf(t, "a", fmt.Sprint(i)), ref); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "layout")
	for _, ref := range []string{webName, otherName, webName} {
		if _, err := Save(context.Background(), store, &image.Request{Images: []string{ref}, Format: "oci", File: dir}, (&heard{}).tell); err != nil {
			t.Fatal(err)
		}
	}
	images, err := Pull(context.Background(), newStore(t), &image.Request{Source: "oci:" + dir}, (&heard{}).tell)
	if err != nil || len(images) != 2 {
		t.Error(images, err)
	}
	if err := store.Tag(images[0], topName); err != nil {
		t.Fatal(err)
	}
	if _, err := Save(context.Background(), store, &image.Request{Images: []string{topName}, Format: "oci", File: dir}, (&heard{}).tell); err != nil {
		t.Fatal(err)
	}
	if images, err = Pull(context.Background(), newStore(t), &image.Request{Source: "oci:" + dir}, (&heard{}).tell); err != nil || len(images) != 2 {
		t.Error("an image with two names: ", images, err)
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Save(context.Background(), store, &image.Request{Images: []string{webName}, Format: "oci", File: full}, (&heard{}).tell)
	wantError(t, err, "is not empty, and no OCI image layout")
	if left, _ := os.ReadDir(full); len(left) != 1 {
		t.Error(left)
	}
	_, err = Save(context.Background(), store, &image.Request{Images: []string{"nowhere"}, Format: "oci-archive", File: filepath.Join(full, "x")}, (&heard{}).tell)
	wantError(t, err, `no image "nowhere"`)
	if _, err = Save(context.Background(), store, &image.Request{Images: []string{webName}, Format: "oci-archive", File: "/dev/full"}, (&heard{}).tell); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Error("to a full disk: ", err)
	}
}
