// Package unpack writes one layer of an image into an empty folder, so that it can be a lower layer of an overlay.
// It holds the layer against both of its digests, and refuses to know what a store, a pod or a mount is: it finds
// an open blob and the folder, mostly "/", without /proc or any other file.
//
// The entries are written by containerd's pkg/archive.Apply. It resolves each name inside of the root before it
// touches it, takes any reader, and has two hooks, one before and one after a name is resolved, in which all
// that it lacks fits: limits, squashing, xattrs, overlay's whiteouts, holes, the root folder itself. It asks /proc
// about user namespaces only for device nodes, which the first hook drops, and for the words of an error.
// moby/go-archive would chroot on its own, and counts on /proc; it has one hook less and cannot say why an id is
// refused. containers/storage unpacks well, but only together with its store, its locks and a re-executed child.
// Apply remembers every path, so it is given a long layer piece by piece (stream.go), and looks up each part of
// each name twice, so new files in folders that are there are written past it (file.go).
package unpack
