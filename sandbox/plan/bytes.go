package plan

import (
	"encoding/binary"
)

var Native = binary.NativeEndian
