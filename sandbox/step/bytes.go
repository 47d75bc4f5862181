package step

import (
	"encoding/binary"
)

var Native = binary.NativeEndian
