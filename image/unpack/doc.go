// Package unpack unpacks layers.
package unpack

import (
	_ "github.com/containerd/containerd/v2/pkg/archive"
	_ "github.com/klauspost/compress/gzip"
	_ "github.com/klauspost/compress/zstd"
)
