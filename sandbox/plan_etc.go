package sandbox

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/pod"
)

// etcFile is a file that podsh writes for every pod.
type etcFile struct {
	path, text string
	shared     bool // a container has the pod's own
}

func (p *creation) etcFiles() []etcFile {
	if p.member != nil {
		return p.member.etc
	}
	hostname := ""
	if p.pod.Own("uts") {
		hostname = p.pod.Hostname
	}
	return []etcFile{
		{path: "/etc/hosts", text: p.hosts(hostname)},
		{path: "/etc/hostname", text: hostname + "\n"},
		{path: "/etc/resolv.conf", text: p.resolver()},
	}
}

const etcWhy = "write the pod's hosts, host name and resolver"

// writeEtcFiles writes them beside the root that is a folder of the host, to be bound over what is there: the
// folder itself is not changed.
func (p *creation) writeEtcFiles() {
	var cmd []string
	for _, f := range p.etcFiles() {
		cmd = append(cmd, fmt.Sprintf("printf %%s %s >$root/%s", quote(f.text), path.Base(f.path)))
	}
	p.explain(etcWhy, "hosts(5)", strings.Join(cmd, "\n"))
	for _, f := range p.etcFiles() {
		if f.shared {
			continue
		}
		p.write(path.Base(f.path), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, f.text)
		p.take(f.source())
	}
}

// source is the file where it was written.
func (f etcFile) source() source { return source{path: path.Base(f.path)} }

// hostEtcFiles writes them into a root that is podsh's own.
func (p *creation) hostEtcFiles() {
	var cmd []string
	for _, f := range p.etcFiles() {
		cmd = append(cmd, fmt.Sprintf("printf %%s %s >%s", quote(f.text), here(f.path)))
	}
	p.explain(etcWhy, "hosts(5)", strings.Join(cmd, "\n"))
	for _, f := range p.etcFiles() {
		p.write(here(f.path), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, f.text)
	}
}

// placeEtcFiles shows them where a folder has its own.
func (p *creation) placeEtcFiles() {
	overlay := p.pod.Spec.Rootfs.Mode == "overlay"
	var place []etcFile
	var cmd []string
	for _, f := range p.etcFiles() {
		if p.facts.Dir.Files[f.path] {
			cmd = append(cmd, "mount --bind ../"+path.Base(f.path)+" "+here(f.path))
		} else if overlay {
			cmd = append(cmd, fmt.Sprintf("mkdir -p etc && rm -f %s && touch %[1]s && mount --bind ../%s %[1]s", here(f.path), path.Base(f.path)))
		} else {
			continue // a place to bind it to would change the folder
		}
		place = append(place, f)
	}
	p.explain("show the pod's hosts, host name and resolver in place of the folder's own", "mount(8)", strings.Join(cmd, "\n"))
	for _, f := range place {
		name := path.Base(f.path)
		folder := p.makeFolders("/etc")
		if !p.facts.Dir.Files[f.path] {
			p.callTolerating(unix.ENOENT, unix.SYS_UNLINKAT, folder, name, 0)
			p.call(unix.SYS_MKNODAT, folder, name, unix.S_IFREG|0o644, 0)
		}
		p.putOn(f.source(), p.openSafely(folder, name, 0))
	}
	p.head = Step{} // where nothing could be placed
}

// etc reads the files that podsh has written for the pod, as they are now: who shares a network shares its names. pidfd
// is of the holder.
func etc(p *pod.Pod, pidfd *os.File) ([]etcFile, error) {
	root, err := openRoot(p, pidfd)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	var list []etcFile
	for _, name := range etcFiles {
		list = append(list, etcFile{path: name, text: files.ReadIn(root, name)})
	}
	state, err := Net(p)
	if err != nil || state.ResolvConf == nil {
		return list, err
	}
	found, is, err := findResolvConf(root)
	if err == nil {
		unix.Close(found)
		list[slices.Index(etcFiles, "/etc/resolv.conf")].shared = is == *state.ResolvConf
	}
	return list, nil // else somebody in the pod has put another there
}

// withHostname are the pod's files for a container that may have another host name.
func withHostname(etc []etcFile, hostname string) []etcFile {
	files := slices.Clone(etc)
	for i, f := range files {
		switch f.path {
		case "/etc/hostname":
			files[i].text = hostname + "\n"
		case "/etc/hosts": // names itself, hosts(5): as network.Hosts writes it
			if before, rest, ok := strings.Cut(f.text, "\n127.0.1.1\t"); ok {
				_, after, _ := strings.Cut(rest, "\n")
				files[i].text = before + "\n127.0.1.1\t" + hostname + "\n" + after
			}
		}
	}
	return files
}
