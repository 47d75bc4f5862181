package program

import (
	"encoding/binary"
	"errors"
)

// errPacked is a program that was not packed by command pack.
var errPacked = errors.New("malformed")

// most is what one byte of a packed program can become: three are a copy of at most 64. What claims more is not to cost
// the memory that it claims.
const most = 22

// mostSize is how many bytes the size of what was packed has at most: it is below 2^32, with 7 bits in each.
const mostSize = 5

// unpack reads Snappy's block format (github.com/google/snappy, format_description.txt). It is that one since it is
// read ten times as fast as gzip, in forty lines: podsh starts with all that is linked into it.
func unpack(packed string) ([]byte, error) {
	size, n := binary.Uvarint([]byte(packed[:min(len(packed), binary.MaxVarintLen64)]))
	if n <= 0 || n > mostSize || size > 1<<30 || size > most*uint64(len(packed)) {
		return nil, errPacked
	}
	out := make([]byte, 0, size)
	for in := packed[n:]; len(in) > 0; {
		tag := in[0]
		kind := tag & 3
		header := [4]int{1 + max(0, int(tag>>2)-59), 2, 3, 5}[kind]
		if len(in) < header {
			return nil, errPacked
		}
		number := 0
		for i := header - 1; i > 0; i-- {
			number = number<<8 | int(in[i])
		}
		in = in[header:]
		length := int(tag>>2) + 1
		switch {
		case kind == 0 && header > 1:
			length = number + 1
		case kind == 1:
			length, number = int(tag>>2)&7+4, number|int(tag>>5)<<8
		}
		from := len(out) - number
		switch {
		case uint64(length) > size-uint64(len(out)), kind == 0 && length > len(in), kind != 0 && (number == 0 || from < 0):
			return nil, errPacked
		case kind == 0:
			out = append(out, in[:length]...)
			in = in[length:]
		default:
			for length > 0 { // a copy may reach into what it writes, and then repeats that
				part := out[from:min(len(out), from+length)]
				out = append(out, part...)
				length -= len(part)
				from += len(part)
			}
		}
	}
	if uint64(len(out)) != size {
		return nil, errPacked
	}
	return out, nil
}
