// Package program is where the program of the network lies: the helper, and the work on networks (package
// helper). It is heavy, and whatever is linked into podsh is started with every command; so scripts/build
// makes it a program of its own and puts it into podsh's file. Plain `go build` links it into podsh.
package program

// Name is its argv[0]; what it is to do stands behind.
const Name = "podsh@net"
