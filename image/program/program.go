// Package program is where the program of images lies: what speaks with registries, reads and writes archives, and
// unpacks layers (package image/helper). It is heavy, and whatever is linked into podsh is started with every
// command; so scripts/build makes it a program of its own and puts it into podsh's file. Plain `go build` links it
// into podsh.
package program

// Name is its argv[0].
const Name = "podsh@image"
