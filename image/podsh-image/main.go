// Command podsh-image is the program of images by itself. scripts/build puts it into podsh.
package main

import (
	"os"

	"github.com/podsh/podsh/image/helper"
)

func main() { os.Exit(helper.Main(os.Args)) }
