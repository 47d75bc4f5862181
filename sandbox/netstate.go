package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/pod"
)

// netName is the file that holds it, in the pod's folder.
const netName = "net.json"

// Net reads what the pod's network is like; nothing, where it is empty.
func Net(p *pod.Pod) (*pod.NetState, error) {
	state := &pod.NetState{}
	text, err := os.ReadFile(storeOf(p).path("pods", p.ID, netName))
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err == nil {
		err = json.Unmarshal(text, state)
	}
	if err != nil {
		return nil, fmt.Errorf("network of pod %q: %w", p.Title(), err)
	}
	return state, nil
}

// saveNet writes it, whole or not at all.
func saveNet(p *pod.Pod, state *pod.NetState) error {
	return storeOf(p).full(files.WriteJSON(storeOf(p).path("pods", p.ID, netName), state))
}

// lockNet keeps other commands from changing the pod's network.
func lockNet(p *pod.Pod) (unlock func(), err error) {
	folder, err := files.LockFolder(storeOf(p).path("pods", p.ID), unix.LOCK_EX)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.ErrNoPod, nil, "no pod %q", p.Title())
	}
	if err != nil {
		return nil, err
	}
	return func() { folder.Close() }, nil
}
