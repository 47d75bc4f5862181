package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/step"
)

// EtcFile is a file that podsh writes for every pod.
type EtcFile struct {
	Path, Text string
	Shared     bool // a container has the pod's own
}

// EtcFiles are the files below /etc that the root gets in place of its own.
func (p *Creation) EtcFiles() []EtcFile {
	if p.member != nil {
		return p.member.Etc
	}
	hostname := ""
	if p.Pod.Own("uts") {
		hostname = p.Pod.Hostname
	}
	return []EtcFile{
		{Path: "/etc/hosts", Text: p.hosts(hostname)},
		{Path: "/etc/hostname", Text: hostname + "\n"},
		{Path: "/etc/resolv.conf", Text: p.resolver()},
	}
}

const etcWhy = "write the pod's hosts, host name and resolver"

// writeEtcFiles writes them beside the root that is a folder of the host, to be bound over what is there: the
// folder itself is not changed.
func (p *Creation) writeEtcFiles() {
	var cmd []string
	for _, f := range p.EtcFiles() {
		cmd = append(cmd, fmt.Sprintf("printf %%s %s >$root/%s", step.Quote(f.Text), path.Base(f.Path)))
	}
	p.Explain(etcWhy, "hosts(5)", strings.Join(cmd, "\n"))
	for _, f := range p.EtcFiles() {
		if f.Shared {
			continue
		}
		p.write(path.Base(f.Path), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, f.Text)
		p.take(f.source())
	}
}

// source is the file where it was written.
func (f EtcFile) source() source { return source{path: path.Base(f.Path)} }

// hostEtcFiles writes them into a root that is podsh's own.
func (p *Creation) hostEtcFiles() {
	var cmd []string
	for _, f := range p.EtcFiles() {
		cmd = append(cmd, fmt.Sprintf("printf %%s %s >%s", step.Quote(f.Text), here(f.Path)))
	}
	p.Explain(etcWhy, "hosts(5)", strings.Join(cmd, "\n"))
	for _, f := range p.EtcFiles() {
		p.write(here(f.Path), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, f.Text)
	}
}

// placeEtcFiles shows them where a folder has its own.
func (p *Creation) placeEtcFiles() {
	overlay := p.Pod.Spec.Rootfs.Mode == "overlay"
	var place []EtcFile
	var cmd []string
	for _, f := range p.EtcFiles() {
		if p.Facts.Dir.Files[f.Path] {
			cmd = append(cmd, "mount --bind ../"+path.Base(f.Path)+" "+here(f.Path))
		} else if overlay {
			cmd = append(cmd, fmt.Sprintf("mkdir -p etc && rm -f %s && touch %[1]s && mount --bind ../%s %[1]s", here(f.Path), path.Base(f.Path)))
		} else {
			continue // a place to bind it to would change the folder
		}
		place = append(place, f)
	}
	p.Explain("show the pod's hosts, host name and resolver in place of the folder's own", "mount(8)", strings.Join(cmd, "\n"))
	for _, f := range place {
		name := path.Base(f.Path)
		folder := p.makeFolders("/etc")
		if !p.Facts.Dir.Files[f.Path] {
			p.CallTolerating(unix.ENOENT, unix.SYS_UNLINKAT, folder, name, 0)
			p.Call(unix.SYS_MKNODAT, folder, name, unix.S_IFREG|0o644, 0)
		}
		p.putOn(f.source(), p.openSafely(folder, name, 0))
	}
	p.Unsay() // where nothing could be placed
}

// WithHostname are the pod's files for a container that may have another host name.
func WithHostname(etc []EtcFile, hostname string) []EtcFile {
	files := slices.Clone(etc)
	for i, f := range files {
		switch f.Path {
		case "/etc/hostname":
			files[i].Text = hostname + "\n"
		case "/etc/hosts": // names itself, hosts(5): as network.Hosts writes it
			if before, rest, ok := strings.Cut(f.Text, "\n127.0.1.1\t"); ok {
				_, after, _ := strings.Cut(rest, "\n")
				files[i].Text = before + "\n127.0.1.1\t" + hostname + "\n" + after
			}
		}
	}
	return files
}
