package command

import (
	"os/exec"
	"strings"
	"testing"
)

// tooHeavy is what no command is to start with, and why; the programs that podsh embeds may have it.
var tooHeavy = map[string]string{
	"net":                    "its init looks at the machine, and it brings 1.2 MB of code",
	"net/http":               "2 MB of code, 0.5 ms at each start",
	"crypto/sha256":          "from Go 1.26 it brings the 32 MB of memory of its random numbers (crypto/internal/fips140/drbg)",
	"crypto/rand":            "the same",
	"google.golang.org/grpc": "1 ms at each start",
}

// TestLinked: every command starts with all that is linked, and the fork for an executor copies the page tables of its variables.
func TestLinked(t *testing.T) {
	out, err := exec.Command("go", "list", "-e", "-deps", "-tags", "embedded", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := strings.Fields(string(out))
	if len(linked) < 100 {
		t.Fatalf("%d packages can't be all: %s", len(linked), out)
	}
	for _, name := range linked {
		if why := tooHeavy[name]; why != "" {
			t.Errorf("%s is linked: %s", name, why)
		}
	}
}
