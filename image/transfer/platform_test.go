package transfer

import (
	"strings"
	"testing"

	"github.com/podsh/podsh/image"
)

// TestChoose: the newest variant that the platform can run.
func TestChoose(t *testing.T) {
	for _, c := range []struct{ want, have, chosen string }{
		{"linux/amd64", "linux/arm64 linux/amd64", "linux/amd64"},
		{"linux/amd64", "linux/amd64/v3 linux/amd64 linux/amd64/v2", "linux/amd64"},
		{"linux/amd64/v2", "linux/amd64 linux/amd64/v3 linux/amd64/v2", "linux/amd64/v2"},
		{"linux/amd64/v4", "linux/amd64 linux/amd64/v3", "linux/amd64/v3"},
		{"linux/amd64", "windows/amd64 linux/amd64/v2", ""},
		{"linux/arm64", "linux/arm/v7 linux/arm64/v8", "linux/arm64/v8"},
		{"linux/arm64/v8", "linux/arm64", "linux/arm64"},
		{"linux/arm", "linux/arm/v5 linux/arm/v7 linux/arm/v6", "linux/arm/v7"},
		{"linux/arm/v6", "linux/arm/v5 linux/arm/v7 linux/arm/v6", "linux/arm/v6"},
		{"linux/arm/v6", "linux/arm/v7", ""},
		{"linux/riscv64", "unknown/unknown linux/riscv64", "linux/riscv64"},
		{"linux/riscv64", "unknown/unknown", ""},
		{"linux/ppc64le", "", ""},
	} {
		w, err := parsePlatform(c.want)
		if err != nil {
			t.Fatal(err)
		}
		var all []image.Descriptor
		for _, text := range strings.Fields(c.have) {
			parts := append(strings.Split(text, "/"), "")
			all = append(all, image.Descriptor{Platform: &image.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}})
		}
		d, err := w.choose(all)
		if c.chosen == "" {
			if err == nil {
				t.Errorf("%s of %s: %s", c.want, c.have, d.Platform)
			}
		} else if err != nil || d.Platform.String() != c.chosen {
			t.Errorf("%s of %s: %v, %v, not %s", c.want, c.have, d.Platform, err, c.chosen)
		}
	}
	alone := []image.Descriptor{{Digest: "x"}}
	if d, err := (wanted{}).choose(alone); err != nil || d.Digest != "x" {
		t.Error("one of which nothing is known: ", err)
	}
	for _, text := range []string{"linux", "linux/", "/amd64", "a/b/c/d", "linux//v8"} {
		if _, err := parsePlatform(text); err == nil {
			t.Errorf("platform %q", text)
		}
	}
}
