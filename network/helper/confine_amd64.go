package helper

import "golang.org/x/sys/unix"

const fstatat = unix.SYS_NEWFSTATAT

// ofThisMachine are calls that newer ones have taken the place of, and which are made nevertheless where there are
// both: the C library and package unix do.
var ofThisMachine = []uint32{unix.SYS_POLL, unix.SYS_EPOLL_WAIT}
