package store

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

// NetName is the file that holds it, in the pod's folder.
const NetName = "net.json"

// Net reads what the pod's network is like; nothing, where it is empty.
func Net(p *pod.Pod) (*pod.NetState, error) {
	state := &pod.NetState{}
	text, err := os.ReadFile(StoreOf(p).Below("pods", p.ID, NetName))
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

// SaveNet writes it, whole or not at all.
func SaveNet(p *pod.Pod, state *pod.NetState) error {
	return StoreOf(p).Full(files.WriteJSON(StoreOf(p).Below("pods", p.ID, NetName), state))
}

// LockNet keeps other commands from changing the pod's network.
func LockNet(p *pod.Pod) (unlock func(), err error) {
	folder, err := files.LockFolder(StoreOf(p).Below("pods", p.ID), unix.LOCK_EX)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.ErrNoPod, nil, "no pod %q", p.Title())
	}
	if err != nil {
		return nil, err
	}
	return func() { folder.Close() }, nil
}
