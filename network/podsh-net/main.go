// Command podsh-net is the network's program by itself. scripts/build puts it into podsh.
package main

import (
	"os"

	"github.com/podsh/podsh/network/helper"
)

func main() { os.Exit(helper.Main(os.Args)) }
