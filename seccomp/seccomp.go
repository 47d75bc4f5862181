// Package seccomp writes filters of system calls, seccomp(2): programs of classic bpf(4) that let the calls of a
// list through, each with the arguments that were thought of, and refuse all others. It knows how such a program is
// taken and passed quickly, and no call by its name: what a process has use for is said where that process is.
//
// It lies beside those who confine themselves (network/helper) and those who confine others (sandbox): neither may
// import the other.
package seccomp

import (
	"cmp"
	"encoding/binary"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Rule is about one call. With several rules for a call, one that holds is enough.
type Rule struct {
	Call   uint32
	Where  []Check       // all of them hold, else the call is refused
	Answer syscall.Errno // what it gets in place of being let through; ENOSYS, say, where its callers know another
}

// Check is about an argument: what is left of it by the mask is one of a few values. The kernel takes what is
// checked here, numbers and flags, from the lower half of the register, so that is what is looked at.
type Check struct {
	Arg  int // from 0
	Mask uint32
	Is   []uint32
}

// Is checks that an argument is one of a few values.
func Is(arg int, values ...uint32) Check { return Check{arg, ^uint32(0), values} }

// Only checks that an argument has no bits but these.
func Only(arg int, bits uint32) Check { return Check{arg, ^bits, []uint32{0}} }

// But checks that an argument, apart from some bits, is one of a few values.
func But(arg int, bits uint32, values ...uint32) Check { return Check{arg, ^bits, values} }

// Calls are rules that let calls through, whatever their arguments.
func Calls(calls ...uint32) (rules []Rule) {
	for _, call := range calls {
		rules = append(rules, Rule{Call: call})
	}
	return rules
}

// Offsets in a struct seccomp_data. Of an argument the lower half comes first on the machines that podsh is for.
const (
	atNumber = 0
	atArch   = 4
	atArgs   = 16
)

const (
	load    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	and     = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	jump    = unix.BPF_JMP | unix.BPF_JA
	atLeast = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	equal   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	done    = unix.BPF_RET | unix.BPF_K
)

// farthest is how far a jump that depends on something leads: the field for that is a byte.
const farthest = 255

var arch = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]

// answer ends a call with an errno.
func answer(errno syscall.Errno) unix.SockFilter {
	return unix.SockFilter{Code: done, K: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

// Assemble writes the filter. What no rule is about ends with EPERM, and so does every call of another machine's
// (ia32 on amd64) or of x32, whose numbers begin far above.
func Assemble(rules []Rule) []unix.SockFilter {
	program := []unix.SockFilter{
		{Code: load, K: atArch}, {Code: equal, Jt: 1, K: arch}, answer(unix.EPERM),
		{Code: load, K: atNumber},
	}
	return append(program, tree(spans(rules))...)
}

// span is a row of calls with the same fate, up to the next span.
type span struct {
	from uint32
	code []unix.SockFilter
}

// spans cuts the numbers of calls into rows.
func spans(rules []Rule) []span {
	rules = slices.SortedStableFunc(slices.Values(rules), func(a, b Rule) int { return cmp.Compare(a.Call, b.Call) })
	refused := []unix.SockFilter{answer(unix.EPERM)}
	all := []span{{0, refused}}
	add := func(from uint32, code []unix.SockFilter) {
		if last := len(all) - 1; all[last].from == from {
			all = all[:last]
		}
		if last := len(all) - 1; last < 0 || !slices.Equal(all[last].code, code) {
			all = append(all, span{from, code})
		}
	}
	for len(rules) > 0 {
		call, n := rules[0].Call, 1
		for n < len(rules) && rules[n].Call == call {
			n++
		}
		add(call, fate(rules[:n]))
		add(call+1, refused)
		rules = rules[n:]
	}
	return all
}

// tree finds the span of a call in a few steps. When a filter is installed the kernel tries every number with it, to
// know which calls it always lets through (Linux 5.11): a list would be walked to its end for most of them.
func tree(all []span) []unix.SockFilter {
	if len(all) == 1 {
		return all[0].code
	}
	middle := len(all) / 2
	below, above := tree(all[:middle]), tree(all[middle:])
	turn := []unix.SockFilter{{Code: atLeast, K: all[middle].from, Jt: uint8(len(below))}}
	if len(below) > farthest {
		turn = []unix.SockFilter{{Code: atLeast, K: all[middle].from, Jf: 1}, {Code: jump, K: uint32(len(below))}}
	}
	return slices.Concat(turn, below, above)
}

// fate is what becomes of a call, by the rules about it.
func fate(rules []Rule) []unix.SockFilter {
	var code []unix.SockFilter
	for _, rule := range rules {
		end := unix.SockFilter{Code: done, K: unix.SECCOMP_RET_ALLOW}
		if rule.Answer != 0 {
			end = answer(rule.Answer)
		}
		way := []unix.SockFilter{end}
		for _, check := range slices.Backward(rule.Where) {
			way = append(check.code(len(way)), way...)
		}
		code = append(code, way...)
		if len(rule.Where) == 0 {
			return code // what stands behind is out of reach
		}
	}
	return append(code, answer(unix.EPERM))
}

// code goes on if the check holds, else over the next instructions.
func (c Check) code(skip int) []unix.SockFilter {
	code := []unix.SockFilter{{Code: load, K: uint32(atArgs + 8*c.Arg)}}
	if c.Mask != ^uint32(0) {
		code = append(code, unix.SockFilter{Code: and, K: c.Mask})
	}
	for i, value := range c.Is {
		left := len(c.Is) - 1 - i
		test := unix.SockFilter{Code: equal, K: value, Jt: uint8(left)}
		if left == 0 {
			test.Jf = uint8(skip)
		}
		code = append(code, test)
	}
	return code
}

// Bytes are a filter as the row of struct sock_filter that it is in memory.
func Bytes(filter []unix.SockFilter) []byte {
	var row []byte
	for _, i := range filter {
		row = binary.NativeEndian.AppendUint16(row, i.Code)
		row = binary.NativeEndian.AppendUint32(append(row, i.Jt, i.Jf), i.K)
	}
	return row
}
