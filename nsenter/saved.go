package nsenter

// #include "nsenter.h"
import "C"

import (
	"bytes"
	"errors"
)

// DecodeSaved tells for which holder the saved plan in file is.
func DecodeSaved(file []byte) (Saved, error) {
	if len(file) < savedSize || native.Uint64(file) != C.PODSH_MAGIC {
		return Saved{}, errors.New("no saved plan of this version")
	}
	text := func(from, size int) string {
		field, _, _ := bytes.Cut(file[from:from+size], []byte{0})
		return string(field)
	}
	return Saved{
		PID:        int(int32(native.Uint32(file[16:]))),
		PIDFDInode: native.Uint64(file[8:]),
		OwnFile:    native.Uint32(file[20:]) != 0,
		BootID:     text(24, 40),
		Started:    text(88, 24),
	}, nil
}
