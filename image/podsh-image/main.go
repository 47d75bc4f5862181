// Command podsh-image is the program of images by itself. scripts/build puts it into podsh.
package main

import (
	"os"

	"github.com/podsh/podsh/image/helper"
	_ "github.com/podsh/podsh/nsenter" // leads it, before it starts, where it unpacks
)

func main() { os.Exit(helper.Main(os.Args)) }
