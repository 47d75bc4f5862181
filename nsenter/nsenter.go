// Package nsenter carries plans out. It owns the C that runs before the Go runtime (nsenter.c: a loop over
// system calls, the joiner, the pause program), the form in which a plan is handed to it, and the start of
// the processes that perform it.
//
// It refuses to know what a plan is for: which calls, in which order and why is package sandbox's.
package nsenter

// #cgo CFLAGS: -std=gnu11 -O2 -Wall -Wextra
// #include "nsenter.h"
import "C"

import (
	"encoding/binary"
	"fmt"
	"syscall"
	"unsafe"
)

// Descriptors that the performing side finds open (nsenter.h has their meaning).
const (
	PlanFD   = C.PODSH_PLAN_FD
	EnterFD  = C.PODSH_ENTER_FD
	JoinFD   = C.PODSH_JOIN_FD
	PodFD    = C.PODSH_POD_FD
	ReportFD = C.PODSH_REPORT_FD
	TTYFD    = C.PODSH_TTY_FD
	ListenFD = C.PODSH_LISTEN_FD
)

// Numbers of the calls that are not one system call (nsenter.h).
const (
	Clone  = C.PODSH_CLONE  // (flags): go on as a clone whose parent is the caller's parent
	Exec   = C.PODSH_EXEC   // (argv or 0, envp, folders): execve(2) with a search through the folders
	Pause  = C.PODSH_PAUSE  // (): be the pause program
	Init   = C.PODSH_INIT   // (): go on as a child, of which this process stays the init
	Getcwd = C.PODSH_GETCWD // (): fail with EXDEV unless the working directory is below the root
	Getpid = C.PODSH_GETPID // (to, size): write this process's id there, in PIDBytes at most
	Report = C.PODSH_REPORT // (descriptor): tell of failures on that from now on
	Nulls  = C.PODSH_NULLS  // (): join: have the /dev/null that is seen now in place of streams that are the caller's
)

// TouchIsSlow says whether a page's first touch takes long here, as on virtual machines without help from their
// processor: what can be had in one call is better not had page by page. It was timed before Go started.
func TouchIsSlow() bool { return C.podsh_touch_is_slow() != 0 }

// MaxCalls is how many calls all the plans for one process may hold together.
const MaxCalls = C.PODSH_MAX_CALLS

// MaxSockets is how many sockets a command can be given.
const MaxSockets = C.PODSH_MAX_SOCKETS

// PIDBytes is the room that Getpid needs.
const PIDBytes = C.PODSH_PID_BYTES

// Result, as an argument of a call, stands for what an earlier call returned. It counts from the start of
// the whole list.
type Result int

// Words, as an argument, is the address of a row of 64-bit words, each an argument itself: an argv, or a
// structure that holds addresses.
type Words []any

// Strings makes the row of strings that execve(2) takes, with the null pointer at its end.
func Strings(list []string) Words {
	words := make(Words, 0, len(list)+1)
	for _, s := range list {
		words = append(words, s)
	}
	return append(words, 0)
}

// Buffer is memory that several calls of one plan share: what one writes there, another reads.
type Buffer struct{ Bytes []byte }

// At, as an argument, is the address of a byte in a Buffer.
type At struct {
	Buffer *Buffer
	Offset int
}

// Call is one system call. An argument is an int or uintptr, a string (its address, with a zero byte behind
// it), a []byte (its address), a Result, Words or At.
type Call struct {
	Nr       int
	Args     []any
	Tolerate syscall.Errno // no failure
}

// encoder lays a plan out: head, calls, relocations, data.
type encoder struct {
	calls  []byte
	relocs []uint32
	data   []byte
	base   int // where data begins in the plan
	shared map[*Buffer]uint64
}

var native = binary.NativeEndian

const (
	headSize  = C.sizeof_struct_podsh_plan
	callSize  = C.sizeof_struct_podsh_call
	savedSize = C.sizeof_struct_podsh_saved
)

// Encode turns calls into a plan; first is the place of the first one in the whole list.
func Encode(calls []Call, first int) ([]byte, error) {
	if first+len(calls) > MaxCalls {
		return nil, fmt.Errorf("a plan of %d calls: more than %d", first+len(calls), MaxCalls)
	}
	// Where the data begins depends on the number of relocations, so lay everything out twice.
	e := encoder{calls: make([]byte, 0, len(calls)*callSize), relocs: make([]uint32, 0, 2*len(calls)), data: make([]byte, 0, 32*len(calls))}
	for range 2 {
		base := align(headSize + len(calls)*callSize + 4*len(e.relocs))
		e = encoder{e.calls[:0], e.relocs[:0], e.data[:0], base, map[*Buffer]uint64{}}
		for _, call := range calls {
			if err := e.call(call); err != nil {
				return nil, err
			}
		}
	}
	plan := make([]byte, 0, e.base+len(e.data)+1)
	size := e.base + len(e.data) + 1
	if size > C.PODSH_MAX_BYTES {
		return nil, fmt.Errorf("a plan of %d bytes: more than %d", size, C.PODSH_MAX_BYTES)
	}
	plan = native.AppendUint64(plan, C.PODSH_MAGIC)
	for _, n := range []int{size, len(calls), len(e.relocs), first} {
		plan = native.AppendUint32(plan, uint32(n))
	}
	plan = append(plan, e.calls...)
	for _, at := range e.relocs {
		plan = native.AppendUint32(plan, at)
	}
	plan = append(plan, make([]byte, e.base-len(plan))...)
	plan = append(plan, e.data...)
	return append(plan, 0), nil
}

// isPlan says whether nsenter.c would perform these bytes. It works on a copy.
func isPlan(plan []byte) bool {
	words := make([]uint64, len(plan)/8+1) // aligned, as a mapping is
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 8*len(words))
	n := copy(bytes, plan)
	return C.podsh_is_plan(unsafe.Pointer(&words[0]), C.size_t(n)) == 1
}

func align(n int) int { return (n + 7) &^ 7 }

func (e *encoder) call(call Call) error {
	var args [6]uint64
	var results uint64
	if len(call.Args) > len(args) {
		return fmt.Errorf("call %d has %d arguments", call.Nr, len(call.Args))
	}
	at := headSize + len(e.calls) + 24
	for i, arg := range call.Args {
		if r, ok := arg.(Result); ok {
			results |= 1 << i
			arg = int(r)
		}
		word, isAddress, err := e.word(arg)
		if err != nil {
			return fmt.Errorf("call %d: %w", call.Nr, err)
		}
		if isAddress {
			e.relocs = append(e.relocs, uint32(at+8*i))
		}
		args[i] = word
	}
	e.calls = native.AppendUint64(e.calls, uint64(int64(call.Nr)))
	e.calls = native.AppendUint64(e.calls, uint64(call.Tolerate))
	e.calls = native.AppendUint64(e.calls, results)
	for _, word := range args {
		e.calls = native.AppendUint64(e.calls, word)
	}
	return nil
}

// word lays one argument out: its value, and whether that is an offset which becomes an address.
func (e *encoder) word(arg any) (value uint64, isAddress bool, err error) {
	switch a := arg.(type) {
	case int:
		return uint64(int64(a)), false, nil
	case uintptr:
		return uint64(a), false, nil
	case uint64:
		return a, false, nil
	case string:
		return e.put(append([]byte(a), 0)), true, nil
	case []byte:
		return e.put(a), true, nil
	case At:
		at, ok := e.shared[a.Buffer]
		if !ok {
			at = e.put(a.Buffer.Bytes)
			e.shared[a.Buffer] = at
		}
		return at + uint64(a.Offset), true, nil
	case Words:
		at := e.put(make([]byte, 8*len(a)))
		for i, word := range a {
			value, isAddress, err := e.word(word)
			if err != nil {
				return 0, false, err
			}
			if isAddress {
				e.relocs = append(e.relocs, uint32(int(at)+8*i))
			}
			native.PutUint64(e.data[int(at)-e.base+8*i:], value)
		}
		return at, true, nil
	}
	return 0, false, fmt.Errorf("an argument of type %T", arg)
}

func (e *encoder) put(bytes []byte) uint64 {
	e.data = append(e.data, make([]byte, align(len(e.data))-len(e.data))...)
	at := e.base + len(e.data)
	e.data = append(e.data, bytes...)
	return uint64(at)
}

// Format tells plans of one podsh from those of another that it can't perform.
const Format = C.PODSH_MAGIC
