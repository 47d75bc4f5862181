// Package program is a stub.
package program

import "os"

const Name = "podsh@image"

func Open() (*os.File, error) { return os.Open("/proc/self/exe") }
