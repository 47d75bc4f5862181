package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addAddress gives a link an address that can be used at once: without nodad the kernel waits a second or two
// whether somebody else has it, RFC 4862 section 5.4.
func addAddress(h *netlink.Handle, link netlink.Link, address netip.Prefix) error {
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: address.Addr().AsSlice(), Mask: mask(address)}}
	if address.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := h.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("add %s to %s: %w", address, link.Attrs().Name, err)
	}
	return nil
}

// deleteLink deletes a link that is ours, if it is there.
func deleteLink(h *netlink.Handle, name string, ours func(netlink.Link) bool) error {
	link, err := h.LinkByName(name)
	if isNoLink(err) || err == nil && !ours(link) {
		return nil
	}
	if err == nil {
		err = h.LinkDel(link)
	}
	if err != nil && !isAny(err, unix.ENODEV) { // it went with the pod's namespace just now
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

func isNoLink(err error) bool {
	var none netlink.LinkNotFoundError
	return errors.As(err, &none)
}

func isAny(err error, numbers ...error) bool {
	for _, number := range numbers {
		if errors.Is(err, number) {
			return true
		}
	}
	return false
}

func family(address netip.Addr) int {
	if address.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func mask(prefix netip.Prefix) net.IPMask {
	return net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())
}

func ipNet(subnet netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: subnet.Addr().AsSlice(), Mask: mask(subnet)}
}
