package transfer

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/podsh/podsh/image"
)

// settings are what this machine and its user say of registries: containers-registries.conf(5), and docker's daemon.json.
type settings struct {
	Search  []string          `toml:"unqualified-search-registries"`
	Mode    string            `toml:"short-name-mode"`
	Aliases map[string]string `toml:"aliases"`
	Rules   []rule            `toml:"registry"`
}

// rule is what is said of all images whose names begin so.
type rule struct {
	Prefix   string `toml:"prefix"`
	Location string `toml:"location"`
	Insecure bool   `toml:"insecure"`
	Blocked  bool   `toml:"blocked"`
	ByDigest bool   `toml:"mirror-by-digest-only"`
	Mirrors  []struct {
		Location string `toml:"location"`
		Insecure bool   `toml:"insecure"`
		From     string `toml:"pull-from-mirror"` // all, digest-only or tag-only
	} `toml:"mirror"`

	file string // that says so
}

// readSettings reads all files that there are.
func readSettings() (*settings, error) {
	s := &settings{Aliases: map[string]string{}}
	for _, file := range settingsFiles() {
		var more settings
		_, err := toml.DecodeFile(file, &more)
		if absent(err) {
			continue
		}
		if err != nil {
			return nil, image.Fail(err, "containers-registries.conf(5) says what stands in it", "%s: %v", file, err)
		}
		s.add(file, &more)
	}
	for _, file := range daemonFiles() {
		if err := s.addDocker(file); err != nil {
			return nil, image.Fail(err, "dockerd(8), daemon configuration file, says what stands in it", "%s: %v", file, err)
		}
	}
	return s, nil
}

// settingsFiles are podman's, the least important first: one that all other tools would read, and what is dropped in.
func settingsFiles() []string {
	const system = "/etc/containers/registries.conf"
	files := []string{system}
	folders := []string{system + ".d"}
	if config, err := os.UserConfigDir(); err == nil {
		own := filepath.Join(config, "containers", "registries.conf")
		if _, err := os.Stat(own); err == nil {
			files[0] = own // in place of the system's
		}
		folders = append(folders, own+".d")
	}
	if file := os.Getenv("CONTAINERS_REGISTRIES_CONF"); file != "" {
		files[0] = file
	}
	for _, folder := range folders {
		dropped, _ := filepath.Glob(filepath.Join(folder, "*.conf")) // the pattern is right
		files = append(files, dropped...)
	}
	return files
}

// add takes in a file that counts more than those before it.
func (s *settings) add(file string, more *settings) {
	if more.Search != nil {
		s.Search = more.Search
	}
	if more.Mode != "" {
		s.Mode = more.Mode
	}
	for short, whole := range more.Aliases {
		s.Aliases[short] = whole
	}
	for _, r := range more.Rules {
		r.file = file
		if r.Prefix == "" {
			r.Prefix = r.Location
		}
		s.Rules = slices.DeleteFunc(s.Rules, func(other rule) bool { return other.Prefix == r.Prefix })
		s.Rules = append(s.Rules, r)
	}
}

// daemonFiles are docker's, and docker's without root.
func daemonFiles() []string {
	files := []string{"/etc/docker/daemon.json"}
	if config, err := os.UserConfigDir(); err == nil {
		files = append(files, filepath.Join(config, "docker", "daemon.json"))
	}
	return files
}

// addDocker takes in what docker's daemon is told: mirrors of its own registry, and registries without TLS. What podman's
// files say of a registry counts more.
func (s *settings) addDocker(file string) error {
	text, err := os.ReadFile(file)
	if absent(err) || errors.Is(err, fs.ErrPermission) { // it is the daemon's
		return nil
	}
	var daemon struct {
		Mirrors  []string `json:"registry-mirrors"`
		Insecure []string `json:"insecure-registries"`
	}
	if err == nil {
		err = json.Unmarshal(text, &daemon)
	}
	if err != nil {
		return err
	}
	hub := rule{Prefix: "docker.io", Location: "docker.io", file: file}
	for _, mirror := range daemon.Mirrors {
		location, plain := strings.CutPrefix(mirror, "http://")
		location = strings.TrimSuffix(strings.TrimPrefix(location, "https://"), "/")
		hub.Mirrors = append(hub.Mirrors, struct {
			Location string `toml:"location"`
			Insecure bool   `toml:"insecure"`
			From     string `toml:"pull-from-mirror"`
		}{Location: location, Insecure: plain || slices.Contains(daemon.Insecure, location)})
	}
	rules := []rule{}
	if len(hub.Mirrors) > 0 {
		rules = append(rules, hub)
	}
	for _, host := range daemon.Insecure {
		rules = append(rules, rule{Prefix: host, Location: host, Insecure: true, file: file})
	}
	for _, r := range rules {
		if !slices.ContainsFunc(s.Rules, func(other rule) bool { return other.Prefix == r.Prefix }) {
			s.Rules = append(s.Rules, r)
		}
	}
	return nil
}

// ruleFor finds the rule whose prefix says most of a name. length is how much of the name that is.
func (s *settings) ruleFor(name string) (best *rule, length int) {
	for i := range s.Rules {
		if n := s.Rules[i].matches(name); n > length {
			best, length = &s.Rules[i], n
		}
	}
	return best, length
}

// matches tells how much of a name HOST[:PORT]/REPOSITORY the rule is about; 0: it is about others.
func (r *rule) matches(name string) int {
	host, _, _ := strings.Cut(name, "/")
	if domain, ok := strings.CutPrefix(r.Prefix, "*."); ok { // it may have no more than the host
		if strings.HasSuffix(host, "."+domain) {
			return len(host)
		}
		return 0
	}
	if network, err := netip.ParsePrefix(r.Prefix); err == nil { // docker's insecure-registries
		address, err := netip.ParseAddr(host)
		if withPort, portErr := netip.ParseAddrPort(host); portErr == nil {
			address, err = withPort.Addr(), nil
		}
		if err == nil && network.Contains(address) {
			return len(host)
		}
		return 0
	}
	if rest, ok := strings.CutPrefix(name, r.Prefix); ok && (rest == "" || rest[0] == '/') {
		return len(r.Prefix)
	}
	return 0
}
