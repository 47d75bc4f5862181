package helper

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
)

// A pod's resolv.conf follows the host's: its domains and options, which a VPN brings and takes away again. The helper
// is given the file, and looks every now and then: a watch would be one of the few that a user may have, inotify(7).

// glance is how often it is looked.
const glance = 2 * time.Second

// followed is a resolv.conf that follows the host's. One that somebody in the pod has changed is left alone from then on.
type followed struct {
	file     *os.File
	resolver network.Resolver
	text     string // as it was written last
	failed   error  // to be written: inspect tells of it
}

// follow takes in the file of a pod.
func (h *helper) follow(request *control.Request, files []*os.File) (*control.Answer, error) {
	m, err := h.member(request.Pod)
	if err == nil && (request.Resolver == nil || len(files) != 1) {
		err = errors.New("no file to keep up to date")
	}
	if err != nil {
		control.Close(files)
		return nil, err
	}
	f := &followed{file: files[0], resolver: *request.Resolver}
	if f.text = f.read(); !f.ours() {
		f.file.Close()
		return &control.Answer{}, nil
	}
	m.followed = f
	h.glancing.Do(func() { go h.glance() })
	return &control.Answer{}, f.update(h.hostsConf())
}

// glance keeps the files up to date until the helper ends.
func (h *helper) glance() {
	ticker := time.NewTicker(glance)
	defer ticker.Stop()
	for {
		select {
		case <-h.end:
			return
		case <-ticker.C:
		}
		host := h.hostsConf()
		h.lock.Lock()
		for _, m := range h.members {
			if m.followed != nil {
				m.followed.failed = m.followed.update(host)
			}
		}
		h.lock.Unlock()
	}
}

// hostsConf is the host's resolv.conf; one that can't be read now is as it was.
func (h *helper) hostsConf() network.ResolvConf { return network.ParseResolvConf(h.names.ResolvConf()) }

// ours says whether podsh wrote what is there: it writes in one way alone, and names the servers that it knows.
func (f *followed) ours() bool {
	conf := network.ParseResolvConf(f.text)
	return conf.String() == f.text && slices.Equal(conf.Servers, f.resolver.ResolvConf(network.ResolvConf{}).Servers)
}

// update writes it anew, if the host's says something else. It is written in one piece, with blank lines behind where it
// is shorter: whoever reads it meanwhile sees one or the other.
func (f *followed) update(host network.ResolvConf) error {
	text := f.resolver.ResolvConf(host).String()
	if text == f.text || len(text) >= longest {
		return nil
	}
	has := f.read()
	if has != f.text {
		return nil
	}
	padded := text + strings.Repeat("\n", max(0, len(has)-len(text)))
	_, err := f.file.WriteAt([]byte(padded), 0)
	if err == nil {
		err = f.file.Truncate(int64(len(text)))
	}
	if err != nil {
		return fmt.Errorf("resolv.conf of the pod: %w", err)
	}
	f.text = text
	return nil
}

// longest bounds what podsh writes there, in bytes.
const longest = 8 << 10

// read returns what it says, the start of it if somebody has made it long. What can't be read is not ours.
func (f *followed) read() string {
	text := make([]byte, longest)
	n, _ := f.file.ReadAt(text, 0)
	return string(text[:n])
}
