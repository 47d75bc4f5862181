package command

import (
	"debug/elf"
	"testing"
)

// TestMemory: every command starts with the variables of all that is linked, and a fork for an executor copies their page
// tables. One package more can bring megabytes, as crypto/sha256 does (32 of them, from Go 1.26).
func TestMemory(t *testing.T) {
	file, err := elf.Open(podshBinary)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, part := range file.Progs {
		if part.Type == elf.PT_LOAD && part.Flags&elf.PF_W != 0 && part.Memsz > 1<<20 {
			t.Errorf("%s: variables take %d kB, not at most 1024", podshBinary, part.Memsz>>10)
		}
	}
}
