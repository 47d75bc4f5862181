package step

import (
	"encoding/binary"
)

// Native is the order of bytes in what the kernel reads from memory.
var Native = binary.NativeEndian
