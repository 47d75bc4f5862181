package command

import (
	"os/exec"
	"strings"
	"testing"
)

// TestLayers holds the lines between packages: main → command → sandbox → the others, which know nothing of them; and
// what is heavy is linked into the network's program alone, since podsh starts all that is linked into it with
// every command.
func TestLayers(t *testing.T) {
	const own = "github.com/podsh/podsh/"
	heavy := []string{"gvisor.dev/", "github.com/miekg/dns", "github.com/containernetworking/", "github.com/vishvananda/", "net/http",
		"github.com/google/go-containerregistry", "github.com/containerd/", "github.com/klauspost/", "github.com/therootcompany/", "github.com/BurntSushi/"}
	for _, layer := range []struct {
		of     []string // arguments of go list
		lacks  []string
		before string // why
	}{
		{[]string{"-tags", "urfave_cli_no_docs,embedded", "."}, heavy, "podsh starts with it"},
		{[]string{"./sandbox"}, append(heavy, own+"network/helper", own+"network/relay", own+"image/helper", own+"image/transfer", own+"image/unpack"), "podsh starts with it"},
		{[]string{"./nsenter", "./rootfs", "./network/..."}, []string{own + "sandbox", "github.com/urfave/cli"}, "they never decide where code runs"},
		{[]string{"./network", "./network/control"}, append(heavy, own+"nsenter"), "these are the words alone"},
		{[]string{"./image"}, append(heavy, own+"nsenter", own+"sandbox", "crypto/tls", "regexp", "text/template"), "every command reads images"},
		{[]string{"./image/..."}, []string{own + "sandbox", own + "network", "github.com/urfave/cli"}, "they never decide where code runs"},
		{[]string{"./image/transfer", "./image/unpack"}, []string{own + "nsenter", own + "image/helper"}, "they act where they stand"},
		{[]string{"./network/relay", "./network/stack", "./network/names", "./network/link"}, []string{own + "nsenter", own + "network/helper"}, "they act where they stand"},
	} {
		// -e: the program that is embedded need not be there for this.
		out, err := exec.Command("go", append([]string{"list", "-e", "-deps"}, layer.of...)...).Output()
		if err != nil {
			t.Fatalf("go list %v: %v", layer.of, err)
		}
		for line := range strings.Lines(string(out)) {
			for _, forbidden := range layer.lacks {
				if strings.HasPrefix(line, forbidden) {
					t.Errorf("%s links %s: %s", strings.Join(layer.of, " "), strings.TrimSpace(line), layer.before)
				}
			}
		}
	}
}
