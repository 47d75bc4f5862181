// Package tarcopy copies files and folders into and out of a root that somebody else may be changing, as a
// tar: Pack writes it, Destination decides with docker cp's rules where it goes, Place unpacks it. Neither
// the tree that is packed nor the tar that is placed is trusted.
//
// It refuses to know pods, containers and command lines; it enters no namespace and gains no right. Whoever
// calls it stands where the files are, and has opened the root.
package tarcopy
