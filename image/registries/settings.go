// Package registries is what this machine and its user say of registries, for docker and for podman: which are to be
// asked for a name, whom to trust, and who we are. It only reads files, and asks helpers for credentials; it never talks to
// a registry.
package registries

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

// Settings are what this machine and its user say of registries: containers-registries.conf(5), and docker's daemon.json.
type Settings struct {
	Search  []string          `toml:"unqualified-search-registries"`
	Mode    string            `toml:"short-name-mode"`
	Aliases map[string]string `toml:"aliases"`
	Rules   []Rule            `toml:"registry"`
}

// Rule is what is said of all images whose names begin so.
type Rule struct {
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

	File string // that says so
}

// Read reads all files that there are.
func Read() (*Settings, error) {
	s := &Settings{Aliases: map[string]string{}}
	for _, file := range settingsFiles() {
		var more Settings
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
func (s *Settings) add(file string, more *Settings) {
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
		r.File = file
		if r.Prefix == "" {
			r.Prefix = r.Location
		}
		s.Rules = slices.DeleteFunc(s.Rules, func(other Rule) bool { return other.Prefix == r.Prefix })
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
func (s *Settings) addDocker(file string) error {
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
	hub := Rule{Prefix: "docker.io", Location: "docker.io", File: file}
	for _, mirror := range daemon.Mirrors {
		location, plain := strings.CutPrefix(mirror, "http://")
		location = strings.TrimSuffix(strings.TrimPrefix(location, "https://"), "/")
		hub.Mirrors = append(hub.Mirrors, struct {
			Location string `toml:"location"`
			Insecure bool   `toml:"insecure"`
			From     string `toml:"pull-from-mirror"`
		}{Location: location, Insecure: plain || slices.Contains(daemon.Insecure, location)})
	}
	rules := []Rule{}
	if len(hub.Mirrors) > 0 {
		rules = append(rules, hub)
	}
	for _, host := range daemon.Insecure {
		rules = append(rules, Rule{Prefix: host, Location: host, Insecure: true, File: file})
	}
	for _, r := range rules {
		if !slices.ContainsFunc(s.Rules, func(other Rule) bool { return other.Prefix == r.Prefix }) {
			s.Rules = append(s.Rules, r)
		}
	}
	return nil
}

// RuleFor finds the rule whose prefix says most of a name. length is how much of the name that is.
func (s *Settings) RuleFor(name string) (best *Rule, length int) {
	for i := range s.Rules {
		if n := s.Rules[i].matches(name); n > length {
			best, length = &s.Rules[i], n
		}
	}
	return best, length
}

// matches tells how much of a name HOST[:PORT]/REPOSITORY the rule is about; 0: it is about others.
func (r *Rule) matches(name string) int {
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

// Names are what a name may mean that names no registry: one of docker.io's, unless registries.conf has others to look in.
func (s *Settings) Names(text string, ref image.Reference) ([]image.Reference, error) {
	first, _, _ := strings.Cut(text, "/")
	if len(s.Search) == 0 || strings.Contains(text, "/") && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return []image.Reference{ref}, nil
	}
	repository, which := text, ""
	if i := strings.IndexAny(text, ":@"); i >= 0 {
		repository, which = text[:i], text[i:]
	}
	if whole := s.Aliases[repository]; whole != "" {
		name, err := image.ParseReference(whole + which)
		return []image.Reference{name}, err
	}
	var names []image.Reference
	var texts []string
	for _, host := range s.Search {
		name, err := image.ParseReference(host + "/" + text)
		if err != nil {
			return nil, err
		}
		names, texts = append(names, name), append(texts, name.Familiar())
	}
	if s.Mode == "enforcing" && len(names) > 1 {
		return nil, image.Fail(image.ErrInvalid, strings.Join(texts, ", or "),
			"%q names no registry, registries.conf has several to look in, and its short-name-mode wants to be told which", text)
	}
	return names, nil
}
