//go:build embedded

package program

import (
	_ "embed"
	"os"
	"strings"

	"github.com/podsh/podsh/nsenter"
)

//go:embed podsh-net
var text string

// Open opens the program: a copy in memory that nobody can change.
func Open() (*os.File, error) { return nsenter.Sealed(Name, strings.NewReader(text)) }
