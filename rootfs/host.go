package rootfs

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Entry is one path of a root file system that is put together from parts of the host's.
type Entry struct {
	Path   string      // in the pod, absolute
	Link   string      // a symbolic link to this
	Source string      // or: the host's folder or file, bound read-only
	IsDir  bool        // or: a folder of its own, if neither
	Mode   os.FileMode // of that
}

// UnixMode is the mode as system calls take it.
func (e Entry) UnixMode() int {
	bits := int(e.Mode.Perm())
	if e.Mode&os.ModeSticky != 0 {
		bits |= unix.S_ISVTX
	}
	return bits
}

// programs are the folders that programs live in. On most systems all but /usr are links into it; /nix and
// /gnu are where NixOS and Guix keep theirs.
var programs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/gnu"}

// settings are what programs need of /etc: never shadow, host keys or private certificates.
var settings = []string{
	"/etc/alternatives", "/etc/ca-certificates", "/etc/crypto-policies", "/etc/group", "/etc/host.conf",
	"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/mime.types",
	"/etc/nsswitch.conf", "/etc/os-release", "/etc/passwd", "/etc/pki/ca-trust", "/etc/pki/tls/certs",
	"/etc/protocols", "/etc/services", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/timezone",
}

// folders are the pod's own, on its own tmpfs.
var folders = []Entry{
	{Path: "/etc", IsDir: true, Mode: 0o755},
	{Path: "/home", IsDir: true, Mode: 0o755},
	{Path: "/mnt", IsDir: true, Mode: 0o755},
	{Path: "/opt", IsDir: true, Mode: 0o755},
	{Path: "/root", IsDir: true, Mode: 0o700},
	{Path: "/run", IsDir: true, Mode: 0o755},
	{Path: "/run/lock", IsDir: true, Mode: 0o777 | os.ModeSticky},
	{Path: "/srv", IsDir: true, Mode: 0o755},
	{Path: "/tmp", IsDir: true, Mode: 0o777 | os.ModeSticky},
	{Path: "/var", IsDir: true, Mode: 0o755},
	{Path: "/var/cache", IsDir: true, Mode: 0o755},
	{Path: "/var/lib", IsDir: true, Mode: 0o755},
	{Path: "/var/log", IsDir: true, Mode: 0o755},
	{Path: "/var/tmp", IsDir: true, Mode: 0o777 | os.ModeSticky},
	{Path: "/var/run", Link: "/run"},
	{Path: "/var/lock", Link: "/run/lock"},
}

// Host lists a root in which whatever this machine has installed runs: its programs and the settings that
// they need, read-only, and folders of the pod's own to write in. Every folder comes before what is in it.
func Host() ([]Entry, error) {
	var entries []Entry
	for _, path := range programs {
		entry, err := hostEntry(path)
		if err != nil {
			return nil, err
		}
		if entry.Path != "" {
			entries = append(entries, entry)
		}
	}
	entries = append(entries, folders...)
	made := map[string]bool{"/etc": true}
	for _, path := range settings {
		entry, err := hostEntry(path)
		if err != nil {
			return nil, err
		}
		if entry.Path == "" {
			continue
		}
		if dir := filepath.Dir(path); !made[dir] {
			made[dir] = true
			entries = append(entries, missing(dir, made)...)
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// missing lists the folders on the way to dir, and dir, that are not made yet.
func missing(dir string, made map[string]bool) []Entry {
	var entries []Entry
	if up := filepath.Dir(dir); !made[up] && up != "/" {
		made[up] = true
		entries = missing(up, made)
	}
	return append(entries, Entry{Path: dir, IsDir: true, Mode: 0o755})
}

// hostEntry describes one path of the host, or nothing where it has none. A link that stays among the
// programs stays a link; another one is followed.
func hostEntry(path string) (Entry, error) {
	info, err := os.Lstat(path)
	if os.IsNotExist(err) {
		return Entry{}, nil
	}
	if err != nil {
		return Entry{}, err
	}
	if info.Mode()&os.ModeSymlink == 0 {
		return Entry{Path: path, Source: path, IsDir: info.IsDir()}, nil
	}
	link, err := os.Readlink(path)
	if err != nil {
		return Entry{}, err
	}
	target := link
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(path), target)
	}
	if strings.HasPrefix(target, "/usr/") {
		return Entry{Path: path, Link: link}, nil
	}
	source, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Entry{}, nil // a link to nowhere is no loss
	}
	info, err = os.Stat(source)
	if err != nil {
		return Entry{}, err
	}
	return Entry{Path: path, Source: source, IsDir: info.IsDir()}, nil
}
