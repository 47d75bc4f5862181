//go:build !embedded

package main

import "github.com/podsh/podsh/network/helper"

// networkMain is the network's program (package network/program), where that is linked into this one.
var networkMain = helper.Main
