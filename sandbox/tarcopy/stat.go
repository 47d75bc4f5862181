package tarcopy

import (
	"fmt"
	"io/fs"
	"os"
)

// Stat tells what a name below root is; links in it are followed as they are seen inside root.
func Stat(root *os.Root, name string) (fs.FileInfo, error) {
	_, info, err := resolve(root, name, follows(name))
	if err == nil && info == nil {
		err = fmt.Errorf("no file or folder %q", name)
	}
	return info, err
}
