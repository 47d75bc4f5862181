package helper

import "golang.org/x/sys/unix"

// legacy are the calls that newer ones have taken the place of, as far as arm64 has them.
var legacy = []uint32{unix.SYS_RENAMEAT}
