package helper

import "golang.org/x/sys/unix"

const fstatat = unix.SYS_FSTATAT

// ofThisMachine are calls that amd64 alone has besides.
var ofThisMachine []uint32
