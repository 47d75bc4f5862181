package sandbox

import (
	"errors"

	"github.com/podsh/podsh/sandbox/store"
)

// RemoveLost removes those folders.
func RemoveLost() error {
	lost, err := store.Lost()
	if err != nil || len(lost) == 0 {
		return err
	}
	usual, err := usualPod()
	if err != nil {
		return err
	}
	for _, dir := range lost {
		err = errors.Join(err, removeTree(usual, dir))
	}
	return err
}
