package link

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// addNAT lets what leaves a network through other links carry their addresses: nft(8), or iptables(8) where
// that is not installed. Done twice it is there once.
func addNAT(ctx context.Context, n Network) error {
	if nft := program("nft"); nft != "" {
		return run(ctx, nftAdd(n), nft, "-f", "-")
	}
	return iptables(ctx, n, func(ctx context.Context, tool string, rule []string) error {
		if run(ctx, "", tool, append([]string{"-w", "-t", "nat", "-C"}, rule...)...) == nil {
			return nil
		}
		return run(ctx, "", tool, append([]string{"-w", "-t", "nat", "-A"}, rule...)...)
	})
}

// removeNAT undoes addNAT, as far as it was done.
func removeNAT(ctx context.Context, n Network) error {
	if nft := program("nft"); nft != "" {
		return run(ctx, nftRemove(n), nft, "-f", "-")
	}
	err := iptables(ctx, n, func(ctx context.Context, tool string, rule []string) error {
		for run(ctx, "", tool, append([]string{"-w", "-t", "nat", "-D"}, rule...)...) == nil {
		}
		return nil
	})
	if errors.Is(err, ErrNoNAT) { // then nothing was done
		return nil
	}
	return err
}

// nftRemove adds the table first, since deleting one that is not there is an error (`destroy` needs Linux 6.3).
func nftRemove(n Network) string {
	return fmt.Sprintf("table inet podsh-%s {}\ndelete table inet podsh-%s\n", n.Name, n.Name)
}

func nftAdd(n Network) string {
	var text strings.Builder
	text.WriteString(nftRemove(n))
	fmt.Fprintf(&text, "table inet podsh-%s {\n\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n", n.Name)
	for _, subnet := range n.Subnets {
		ip := "ip"
		if subnet.Addr().Is6() {
			ip = "ip6"
		}
		fmt.Fprintf(&text, "\t\t%s saddr %s %s daddr != %s oifname != %q masquerade\n", ip, subnet, ip, subnet, n.Bridge)
	}
	// A host that forwards would also let its neighbours in, who need only a route.
	fmt.Fprintf(&text, "\t}\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\toifname %q iifname != %[1]q ct state new drop\n\t}\n}\n", n.Bridge)
	return text.String()
}

// iptables does something with the rule for each subnet.
func iptables(ctx context.Context, n Network, do func(ctx context.Context, tool string, rule []string) error) error {
	for _, subnet := range n.Subnets {
		name := "iptables"
		if subnet.Addr().Is6() {
			name = "ip6tables"
		}
		tool := program(name)
		if tool == "" {
			return ErrNoNAT
		}
		cidr := subnet.String()
		rule := []string{"POSTROUTING", "-s", cidr, "!", "-d", cidr, "!", "-o", n.Bridge,
			"-m", "comment", "--comment", n.alias(), "-j", "MASQUERADE"}
		if err := do(ctx, tool, rule); err != nil {
			return err
		}
	}
	return nil
}

// program finds a program of the administrator's, "" if it is not installed. An ordinary user's PATH often
// lacks the folders that they are in.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range sbin {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	return ""
}

var sbin = []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}

func run(ctx context.Context, input, path string, args ...string) error {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(path), strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
