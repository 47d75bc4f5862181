package registries

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Credentials asks docker's file and its helpers first, then podman's and skopeo's: authn asks those only where there is
// no file of docker's at all. problem is what kept it from asking all of them: who wants a public image can do without, and
// docker's settings are often copied to where their helpers are not.
func Credentials(ctx context.Context, resource authn.Resource) (found authn.Authenticator, problem error) {
	for _, keychain := range []authn.Keychain{authn.DefaultKeychain, podmanKeychain{}} {
		found, err := authn.Resolve(ctx, keychain, resource)
		if err == nil && found != authn.Anonymous {
			return found, nil
		}
		problem = errors.Join(problem, err)
	}
	return authn.Anonymous, problem
}

// CredentialsHint says what to do about a problem with credentials.
func CredentialsHint(problem error) string {
	file := filepath.Join("~", ".docker", "config.json")
	if folder := os.Getenv("DOCKER_CONFIG"); folder != "" {
		file = filepath.Join(folder, "config.json")
	}
	if strings.Contains(problem.Error(), "docker-credential-") {
		return fmt.Sprintf(`install the program that "credsStore" or "credHelpers" in %s names, or take that line out`, file)
	}
	return "look into " + file
}

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
