//go:build embedded

package command

// networkMain is nil: the network's program is one of its own.
var networkMain func(args []string) int

// imageMain is nil, likewise.
var imageMain func(args []string) int
