package command

import (
	"os"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
)

// lasting are the commands that may run for long, and read much.
var lasting = map[string]bool{"run": true, "image": true, "logs": true, "attach": true, "cp": true, "wait": true}

// prepareHeap comes before all that needs memory.
func prepareHeap(args []string) {
	if len(args) < 2 || !lasting[args[1]] {
		debug.SetGCPercent(-1) // podsh lives for milliseconds
	}
	if len(args) > 1 && (args[1] == "create" || args[1] == "run") {
		populateHeap()
	}
}

// populateHeap has the kernel give the heap at once the pages that making a pod or a container takes, where a page's
// first touch takes long: three hundred of them are nine milliseconds on such a machine. On others it is slower than the
// touches, which are of no more pages than needed, and partly made while podsh would be waiting. What the kernel refuses
// (all before Linux 5.14, and where there is no heap) is no different then.
func populateHeap() {
	if !nsenter.TouchIsSlow() {
		return
	}
	const below, above, step = 3 << 19, 2 << 20, 1 << 18 // bytes; below are gaps that the start of Go has left
	page := make([]byte, os.Getpagesize())
	middle := uintptr(unsafe.Pointer(unsafe.SliceData(page))) &^ uintptr(len(page)-1)
	for at := middle - below; at < middle+above; at += step {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, at, step, unix.MADV_POPULATE_WRITE)
	}
}
