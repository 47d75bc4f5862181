package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// What pods and containers write on disk is in folders beside each other (diskFolder). Pods are described in a folder that
// mostly lies in memory: so after a reboot, or the last logout, there are folders whose owners are not described any more.
// What containers wrote stays until somebody asks for its removal. Two links in each folder tell:
//
//	pod    where the owner is described: STORE/pods/ID, or STORE/pods/ID/containers/ID
//	store  which store that is: boot id, device and number of the folder, path. A store that is another one, or that only
//	       this process does not see in its mount namespace, says nothing about the owner.

// claimDisk says whose a folder is. It is locked meanwhile.
func (s *Store) claimDisk(dir, owner string) error {
	identity, err := s.identity()
	if err != nil {
		return err
	}
	for name, text := range map[string]string{"store": identity, "pod": owner} {
		if err := os.Symlink(text, filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

func (s *Store) identity() (string, error) {
	boot, err := bootID()
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Stat(s.Path, &st); err != nil {
		return "", fmt.Errorf("stat %s: %w", s.Path, err)
	}
	return fmt.Sprintf("%s %d:%d %s", boot, st.Dev, st.Ino, s.Path), nil
}

// A leftover is what is in a folder without an owner.
type leftover int

const (
	notLeft   leftover = iota // it has its owner, or may have
	leftBare                  // nothing, or what goes with its pod anyway
	leftWrote                 // what a container wrote
)

// leftIn looks at the folder of an owner.
func leftIn(dir string) leftover {
	owner, err := os.Readlink(filepath.Join(dir, "pod"))
	if errors.Is(err, fs.ErrNotExist) {
		return notLeft // in the making, or a script's
	}
	if _, err = os.Stat(owner); !errors.Is(err, fs.ErrNotExist) || !storeKnows(dir) {
		return notLeft
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return notLeft
	}
	isPod, wrote, volumes := filepath.Base(filepath.Dir(owner)) == "pods", false, false
	for _, entry := range entries {
		wrote = wrote || entry.Name() != "pod" && entry.Name() != "store"
		volumes = volumes || entry.Name() == "volumes"
	}
	if !wrote || isPod && !volumes {
		return leftBare
	}
	return leftWrote
}

// storeKnows says whether an owner that is not described is gone.
func storeKnows(dir string) bool {
	identity, err := os.Readlink(filepath.Join(dir, "store"))
	if err != nil {
		return true // an earlier podsh
	}
	boot, rest, _ := strings.Cut(identity, " ")
	_, path, _ := strings.Cut(rest, " ")
	if now, err := bootID(); err != nil || now != boot {
		return err == nil
	}
	same, err := (&Store{path}).identity()
	return err == nil && same == identity
}

// Lost lists the folders with what containers wrote that are not described any more.
func Lost() ([]string, error) {
	all := diskFolder("")
	entries, err := os.ReadDir(all)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var lost []string
	for _, entry := range entries {
		if dir := filepath.Join(all, entry.Name()); leftIn(dir) == leftWrote {
			lost = append(lost, dir)
		}
	}
	return lost, err
}

// RemoveLost removes those folders.
func RemoveLost() error {
	lost, err := Lost()
	if err != nil || len(lost) == 0 {
		return err
	}
	usual, err := usualPod()
	if err != nil {
		return err
	}
	for _, dir := range lost {
		err = errors.Join(err, usual.removeTree(dir))
	}
	return err
}
