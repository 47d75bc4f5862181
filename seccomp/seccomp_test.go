package seccomp

import (
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// run does what the kernel does with a filter, seccomp(2).
func run(t *testing.T, filter []unix.SockFilter, machine, call uint32, args ...uint64) (verdict uint32, steps int) {
	t.Helper()
	data := map[uint32]uint32{atNumber: call, atArch: machine}
	for i, arg := range args {
		data[uint32(atArgs+8*i)] = uint32(arg)
	}
	var a uint32
	for at := 0; at < len(filter); at++ {
		i := filter[at]
		steps++
		holds := i.Code == atLeast && a >= i.K || i.Code == equal && a == i.K
		switch i.Code {
		case load:
			a = data[i.K]
		case and:
			a &= i.K
		case jump:
			at += int(i.K)
		case done:
			return i.K, steps
		case atLeast, equal:
			if holds {
				at += int(i.Jt)
			} else {
				at += int(i.Jf)
			}
		default:
			t.Fatalf("instruction %d is %+v", at, i)
		}
	}
	t.Fatalf("call %d runs out of the program", call)
	return 0, 0
}

const (
	allowed = uint32(unix.SECCOMP_RET_ALLOW)
	refused = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.EPERM)
	unknown = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.ENOSYS)
)

func TestAssemble(t *testing.T) {
	rules := append(Calls(0, 1, 2, 9, 40), // a row, and single ones
		Rule{Call: 5, Answer: unix.ENOSYS},
		Rule{Call: 7, Where: []Check{Is(0, 2, 10), But(1, 0x800, 1, 3)}},
		Rule{Call: 7, Where: []Check{Is(0, 16), Is(2, 0)}},
		Rule{Call: 8, Where: []Check{Only(2, 0x80800)}})
	filter := Assemble(rules)
	for _, c := range []struct {
		call uint32
		args []uint64
		want uint32
	}{
		{0, nil, allowed}, {2, nil, allowed}, {3, nil, refused}, {4, nil, refused}, {5, nil, unknown}, {6, nil, refused},
		{7, []uint64{2, 1}, allowed}, {7, []uint64{10, 3}, allowed}, {7, []uint64{2, 0x803}, allowed},
		{7, []uint64{2, 2}, refused}, {7, []uint64{2, 0x1003}, refused}, {7, []uint64{3, 1}, refused},
		{7, []uint64{16, 9, 0}, allowed}, {7, []uint64{16, 1, 1}, refused}, {7, []uint64{17, 1, 0}, refused},
		{7, []uint64{7<<32 | 2, 1}, allowed}, // the kernel takes an int
		{8, []uint64{0, 0, 0}, allowed}, {8, []uint64{1, 1, 0x80000}, allowed}, {8, []uint64{0, 0, 0x80801}, refused},
		{9, nil, allowed}, {39, nil, refused}, {40, nil, allowed}, {41, nil, refused}, {1 << 20, nil, refused},
		{0x40000000, nil, refused}, {0x40000000 + 9, nil, refused}, {^uint32(0), nil, refused}, // x32
	} {
		if got, _ := run(t, filter, arch, c.call, c.args...); got != c.want {
			t.Errorf("call %d, %#x: %#x, not %#x", c.call, c.args, got, c.want)
		}
	}
	if got, _ := run(t, filter, unix.AUDIT_ARCH_I386, 0); got != refused {
		t.Errorf("a call of another machine: %#x", got)
	}
	if n := len(Bytes(filter)); n != 8*len(filter) {
		t.Errorf("%d instructions in %d bytes", len(filter), n)
	}
}

// However many calls there are: each has its own fate, and is found in the steps of a tree. Long ways are farther
// than a conditional jump leads.
func TestManyCalls(t *testing.T) {
	var rules []Rule
	want := map[uint32]uint32{}
	for range 200 {
		call := rand.Uint32N(500)
		if want[call] != 0 {
			continue
		}
		rule := Rule{Call: call}
		switch want[call] = allowed; rand.IntN(3) {
		case 0:
			rule.Answer = unix.ENOSYS
			want[call] = unknown
		case 1:
			for arg := range 6 {
				rule.Where = append(rule.Where, But(arg, 0xf0, 1, 2, 3, 4, 0))
			}
		}
		rules = append(rules, rule)
	}
	filter := Assemble(rules)
	if len(filter) > unix.BPF_MAXINSNS {
		t.Fatalf("%d instructions", len(filter))
	}
	longest := 0
	for call := range uint32(600) {
		got, steps := run(t, filter, arch, call, 0, 0, 0, 0, 0, 0)
		expected := want[call]
		if expected == 0 {
			expected = refused
		}
		if got != expected {
			t.Errorf("call %d: %#x, not %#x", call, got, expected)
		}
		if !slices.ContainsFunc(rules, func(r Rule) bool { return r.Call == call && r.Where != nil }) {
			longest = max(longest, steps)
		}
	}
	if longest > 4+2*10+1 {
		t.Errorf("%d steps", longest)
	}
}
