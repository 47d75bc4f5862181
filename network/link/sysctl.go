package link

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const sysctls = "/proc/sys/net" // of the calling thread's network namespace

// linkSysctls are for a bridge and for the pods' ends of its links. Addresses are leased, so that nobody need
// ask whether they are taken: without accept_dad=0 the link-local one is of no use for two seconds, and until
// then nobody asks for neighbours. And a router is what we say it is: without accept_ra=0 any pod could offer
// itself as one.
func linkSysctls(name string, has6 bool) error {
	settings := [][2]string{{"accept_dad", "0"}, {"accept_ra", "0"}}
	if has6 {
		settings = append(settings, [2]string{"disable_ipv6", "0"})
	}
	for _, setting := range settings {
		if err := setSysctl(filepath.Join("ipv6/conf", name, setting[0]), setting[1]); err != nil {
			return err
		}
	}
	return nil
}

// forward lets the bridge's namespace carry packets from one link to another, unless nothing is to go out of
// this network. That stays when it is removed: others may have come to need it.
func forward(n Network) error {
	if n.Internal {
		return nil
	}
	if err := setSysctl("ipv4/ip_forward", "1"); err != nil || !n.has6() {
		return err
	}
	return forward6()
}

// forward6 turns on IPv6 forwarding. A machine that forwards takes itself for a router and listens to no
// other: its own default route would run out. accept_ra=2 keeps those interfaces listening that do.
func forward6() error {
	const forwarding = "ipv6/conf/all/forwarding"
	if getSysctl(forwarding) == "1" {
		return nil
	}
	listeners, _ := filepath.Glob(filepath.Join(sysctls, "ipv6/conf/*/accept_ra"))
	for _, path := range listeners {
		key := strings.TrimPrefix(path, sysctls+"/")
		if getSysctl(key) != "1" || key == "ipv6/conf/all/accept_ra" || key == "ipv6/conf/default/accept_ra" {
			continue
		}
		if err := setSysctl(key, "2"); err != nil {
			return err
		}
	}
	return setSysctl(forwarding, "1")
}

func getSysctl(key string) string {
	value, _ := os.ReadFile(filepath.Join(sysctls, key))
	return strings.TrimSpace(string(value))
}

// setSysctl minds no error if the value is right already: /proc/sys may be read-only. One that is not there is
// no error either: the kernel has no IPv6, and an address will say so where one is needed.
func setSysctl(key, value string) error {
	err := os.WriteFile(filepath.Join(sysctls, key), []byte(value), 0)
	if err == nil || errors.Is(err, fs.ErrNotExist) || getSysctl(key) == value {
		return nil
	}
	return fmt.Errorf("sysctl net/%s=%s: %w", key, value, err)
}
