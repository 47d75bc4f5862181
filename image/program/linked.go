//go:build !embedded

package program

import "os"

// Open opens the program: podsh itself.
func Open() (*os.File, error) { return os.Open("/proc/self/exe") }
