// Package transfer brings images into the store and out of it: from registries, folders and archives, to folders and
// archives, and from a tar of a root file system. It owns what is heavy about that: HTTP, credentials, and what
// others have made of the formats.
//
// It trusts nothing that comes in: what has a digest is compared with it before it gets its name in the store, and
// what has a size is not read beyond it. It refuses to know how layers are unpacked, and what shows progress.
package transfer
