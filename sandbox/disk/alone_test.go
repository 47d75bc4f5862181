package disk

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
)

// TestMain is also the program that unpacks, where a plan has led it: it tells how it is there, in place of unpacking.
func TestMain(m *testing.M) {
	if os.Args[0] != image.UnpackName {
		os.Exit(m.Run())
	}
	conn := os.NewFile(image.RequestFD, "podsh")
	if _, err := bufio.NewReader(conn).ReadBytes('\n'); err != nil { // who asks is to be told, not cut off
		os.Exit(1)
	}
	if err := json.NewEncoder(conn).Encode(image.Event{Error: asItIs()}); err != nil {
		os.Exit(1)
	}
}

// asItIs is what a process can do, by its own system calls: there is no /proc in its root.
func asItIs() string {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err.Error()
	}
	bounding := uint64(0)
	for c := range 64 {
		if in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err == nil && in == 1 {
			bounding |= 1 << c
		}
	}
	var names []string
	entries, err := os.ReadDir("/")
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return fmt.Sprintf("effective %#x permitted %#x inheritable %#x bounding %#x root %s %v; mount: %v; chroot: %v; unshare: %v",
		uint64(data[1].Effective)<<32|uint64(data[0].Effective), uint64(data[1].Permitted)<<32|uint64(data[0].Permitted),
		data[0].Inheritable, bounding, strings.Join(names, " "), err,
		unix.Mount("none", "/", "tmpfs", 0, ""), unix.Chroot("/"), unix.Unshare(unix.CLONE_NEWNS))
}
