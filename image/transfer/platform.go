package transfer

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/podsh/podsh/image"
)

// variants are those of architectures that have some, the oldest first: a machine runs its own and those before.
// The first of defaults is what no variant means.
var variants = map[string]struct {
	order []string
	none  string
}{
	"arm":   {[]string{"v5", "v6", "v7", "v8"}, "v7"},
	"arm64": {[]string{"v8", "v9"}, "v8"},
	"amd64": {[]string{"v1", "v2", "v3", "v4"}, "v1"},
}

// wanted is the platform that is asked for.
type wanted struct {
	image.Platform
	asked bool // by somebody; else it is this machine's
}

func parsePlatform(text string) (wanted, error) {
	if text == "" {
		return wanted{image.Platform{OS: "linux", Architecture: runtime.GOARCH}, false}, nil
	}
	parts := strings.Split(text, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return wanted{}, image.Fail(image.ErrInvalid, "OS/ARCH[/VARIANT], such as linux/arm64", "malformed platform %q", text)
	}
	p := image.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return wanted{p, true}, nil
}

// rank is how well a platform fits: the newer its variant the better, and -1 where it does not.
func (w wanted) rank(p image.Platform) int {
	if p.OS != w.OS || p.Architecture != w.Architecture {
		return -1
	}
	known, ok := variants[p.Architecture]
	if !ok {
		if w.Variant != "" && w.Variant != p.Variant {
			return -1
		}
		return 0
	}
	place := func(variant string) int {
		if variant == "" {
			variant = known.none
		}
		return slices.Index(known.order, variant)
	}
	has, most := place(p.Variant), place(w.Variant)
	if most < 0 && p.Variant == w.Variant {
		return 0
	}
	if has > most {
		return -1
	}
	return has
}

// choose finds the manifest in an index that fits best.
func (w wanted) choose(all []image.Descriptor) (image.Descriptor, error) {
	best, rank := image.Descriptor{}, -1
	var there []string
	for _, d := range all {
		if d.Platform == nil {
			if len(all) == 1 {
				return d, nil
			}
			continue
		}
		if d.Platform.OS == "unknown" { // not to run: buildkit's attestations
			continue
		}
		if r := w.rank(*d.Platform); r > rank {
			best, rank = d, r
		}
		there = append(there, d.Platform.String())
	}
	if rank >= 0 {
		return best, nil
	}
	slices.Sort(there)
	there = slices.Compact(there)
	if len(there) == 0 {
		return best, fmt.Errorf("it has no image for any platform")
	}
	return best, image.Fail(nil, "--platform "+there[0], "it has no image for %s, only for %s", w.Platform, strings.Join(there, ", "))
}

// fits says whether an image is for the platform.
func (w wanted) fits(img *image.Image) bool {
	return w.rank(image.Platform{OS: img.OS, Architecture: img.Arch, Variant: img.Variant}) >= 0
}

// maxNested is how deep indexes may lie in each other: index.json, an index, and one in that.
const maxNested = 4

// resolve goes from an index, or a manifest, to the manifest of one platform.
func (w wanted) resolve(text []byte, mediaType string, read func(image.Descriptor) ([]byte, error)) (*found, error) {
	f := &found{}
	for range maxNested {
		d, err := readDocument(text, mediaType)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(indexes, d.MediaType) {
			f.manifest = text
			f.descriptor = image.Descriptor{MediaType: d.MediaType, Digest: digestOf(text), Size: int64(len(text))}
			return f, nil
		}
		if f.origin.Index == "" {
			f.origin.Index = digestOf(text)
		}
		next, err := w.choose(d.Manifests)
		if err != nil {
			return nil, err
		}
		if err := image.CheckDigest(next.Digest, "a manifest in its index"); err != nil {
			return nil, err
		}
		if text, err = read(next); err != nil {
			return nil, err
		}
		if err := checkDocument(text, next); err != nil {
			return nil, err
		}
		mediaType = next.MediaType
	}
	return nil, fmt.Errorf("its indexes lie more than %d deep in each other", maxNested)
}
