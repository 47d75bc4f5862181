//go:build !embedded

package command

import (
	images "github.com/podsh/podsh/image/helper"
	"github.com/podsh/podsh/network/helper"
)

// networkMain is the network's program (package network/program), where that is linked into this one.
var networkMain = helper.Main

// imageMain is the program of images (package image/program), likewise.
var imageMain = images.Main
