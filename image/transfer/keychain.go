package transfer

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
)

// keychain asks docker's file and its helpers first, then podman's and skopeo's: authn asks those only where there is
// no file of docker's at all.
var keychain = authn.NewMultiKeychain(authn.DefaultKeychain, podmanKeychain{})

// podmanKeychain reads containers-auth.json(5).
type podmanKeychain struct{}

type authFile struct {
	Auths map[string]authn.AuthConfig `json:"auths"`
}

// Resolve finds the entry that names most of the repository.
func (podmanKeychain) Resolve(resource authn.Resource) (authn.Authenticator, error) {
	for _, path := range authFiles() {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // most people have none, or one of them
		}
		var file authFile
		if err := json.Unmarshal(text, &file); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for key := resource.String(); key != "."; key = filepath.Dir(key) {
			if found, ok := file.Auths[strings.Replace(key, "index.docker.io", "docker.io", 1)]; ok {
				return authn.FromConfig(found), nil
			}
		}
	}
	return authn.Anonymous, nil
}

func authFiles() []string {
	files := []string{os.Getenv("REGISTRY_AUTH_FILE")}
	if runtime := os.Getenv("XDG_RUNTIME_DIR"); runtime != "" {
		files = append(files, filepath.Join(runtime, "containers", "auth.json"))
	}
	if config, err := os.UserConfigDir(); err == nil {
		files = append(files, filepath.Join(config, "containers", "auth.json"))
	}
	return files
}
