package command

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"github.com/rogpeppe/go-internal/testscript"
)

// made FILE ROOTFS [CONFIG]: a docker-archive with ROOTFS as its one layer, all of it root's, and what CONFIG says, in JSON as in
// "config" of an image.
func verbMade(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: made FILE ROOTFS [CONFIG]")
	}
	config := "{}"
	if len(args) == 3 {
		config = args[2]
	}
	text, err := madeImage(ts.MkAbs(args[1]), config)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), text, 0o644))
}

func madeImage(root, config string) ([]byte, error) {
	layer, err := exec.Command("tar", "-C", root, "--owner=0", "--group=0", "-cf", "-", ".").Output()
	if err != nil {
		return nil, fmt.Errorf("tar of %s: %w", root, err)
	}
	description := fmt.Appendf(nil, `{"architecture":%q,"os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`,
		runtime.GOARCH, config, sha256.Sum256(layer))
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{"made:latest"}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, file := range []struct {
		name string
		text []byte
	}{{"config.json", description}, {"layer.tar", layer}, {"manifest.json", manifest}} {
		if err := w.WriteHeader(&tar.Header{Name: file.name, Mode: 0o644, Size: int64(len(file.text))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(file.text); err != nil {
			return nil, err
		}
	}
	return archive.Bytes(), w.Close()
}
