// Package image is the user's store of images: an OCI image layout, which other tools can read as well, and
// beside it the layers unpacked, ready to be the lower layers of an overlay. It reads and keeps what is there;
// what speaks with registries, converts and unpacks is heavy, and belongs to the program of images (package
// image/helper), whose words are here, too (request.go).
//
// It refuses to know what an image is run in: package sandbox decides where a layer is unpacked and mounted.
package image

import "time"

// Image is an image of the store, for one platform.
type Image struct {
	Digest  string    `json:"digest"`          // of its manifest: "sha256:…"
	ID      string    `json:"id"`              // the digest of its configuration, which is what other tools call its id
	Names   []string  `json:"names"`           // whole references, such as docker.io/library/busybox:latest
	Index   string    `json:"index,omitempty"` // the digest of the index that it was pulled by, if it was one
	Created time.Time `json:"created"`
	Size    int64     `json:"size"` // bytes of all its blobs, as they are transferred
	OS      string    `json:"os"`
	Arch    string    `json:"architecture"`
	Variant string    `json:"variant,omitempty"`
	Config  Config    `json:"config"`
	Layers  []Layer   `json:"layers"` // the lowest first
	History []History `json:"history,omitempty"`
}

// Config is how a command runs in a container of the image, OCI image-spec "config.md".
type Config struct {
	User         string              `json:"User,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
}

// Layer is one layer of an image.
type Layer struct {
	DiffID    string `json:"diff_id"` // digest of the tar
	Digest    string `json:"digest"`  // digest of the blob, which is that tar compressed
	Size      int64  `json:"size"`    // of the blob
	MediaType string `json:"media_type"`
}

// History is how a layer came about, OCI image-spec "config.md".
type History struct {
	Created    time.Time `json:"created"`
	CreatedBy  string    `json:"created_by,omitempty"`
	Author     string    `json:"author,omitempty"`
	Comment    string    `json:"comment,omitempty"`
	EmptyLayer bool      `json:"empty_layer,omitempty"`
}
