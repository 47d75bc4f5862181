// Command pack packs a program, from standard input to standard output, for podsh's file: scripts/build runs it.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/s2"
)

func main() {
	text, err := io.ReadAll(os.Stdin)
	if err == nil {
		_, err = os.Stdout.Write(s2.EncodeSnappyBest(nil, text)) // Snappy, which package program can read
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "pack: %v\n", err)
		os.Exit(1)
	}
}
