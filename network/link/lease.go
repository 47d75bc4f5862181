package link

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/disk"

	"github.com/podsh/podsh/network"
)

// leases are a network's addresses in use, in the format of CNI's host-local plugin: a file for each address,
// which holds the pod's id and its interface; last_reserved_ip.N for each subnet; and a lock. Hardware addresses
// that were asked for have such files, too: host-local finds them only where it gives back what a pod has.
//
// host-local's own allocator searches all of them for the pod first, so that the 200th pod waits ten times as
// long as the first. Here the veth's name, which follows from the pod's, says whether it is attached already.
type leases struct {
	*disk.Store
	dir string
}

func (p Place) leaseDir(n Network) string { return filepath.Join(p.LeaseDir, n.Name) }

func (p Place) openLeases(n Network) (*leases, error) {
	if err := os.MkdirAll(p.LeaseDir, 0o700); err != nil {
		return nil, err
	}
	store, err := disk.New(n.Name, p.LeaseDir)
	if err != nil {
		return nil, fmt.Errorf("open the leases in %s: %w", p.leaseDir(n), err)
	}
	return &leases{store, p.leaseDir(n)}, nil
}

// take leases an address of each subnet, and the hardware address that is asked for. The caller holds the lock.
func (l *leases) take(n Network, pod Pod) ([]netip.Prefix, error) {
	if pod.MAC != "" {
		if err := l.hold(pod.MAC, pod); err != nil {
			return nil, err
		}
	}
	var taken []netip.Prefix
	for i, subnet := range n.Subnets {
		var err error
		address := pod.wants(subnet)
		if address.IsValid() {
			err = l.lease(address, subnet, pod)
		} else {
			address, err = l.next(subnet, strconv.Itoa(i), pod)
		}
		if err != nil {
			return nil, errors.Join(err, l.drop(pod, &Attachment{Addresses: taken, MAC: pod.MAC}))
		}
		taken = append(taken, netip.PrefixFrom(address, subnet.Bits()))
	}
	return taken, nil
}

// wants is the address that the pod is to have in a subnet, if it names one.
func (pod Pod) wants(subnet netip.Prefix) netip.Addr {
	for _, ip := range pod.IPs {
		if subnet.Contains(ip) {
			return ip
		}
	}
	return netip.Addr{}
}

// lease leases one address. It leaves last_reserved_ip alone: where others are looked for has nothing to do with it.
func (l *leases) lease(address netip.Addr, subnet netip.Prefix, pod Pod) error {
	if gateway, end := network.Ends(subnet); address.Compare(gateway) <= 0 || address.Compare(end) > 0 {
		return fmt.Errorf("%s is no address for pods in %s", address, subnet)
	}
	return l.hold(address.String(), pod)
}

// leaseMAC leases the hardware address that the pod is to have, if it names one: two of them on a bridge take each other's
// frames.
func (p Place) leaseMAC(n Network, pod Pod) error {
	if pod.MAC == "" {
		return nil
	}
	l, err := p.openLeases(n)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Lock(); err != nil {
		return fmt.Errorf("lock %s: %w", l.dir, err)
	}
	defer l.Unlock()
	return l.hold(pod.MAC, pod)
}

// hold makes an address the pod's, or says whose it is.
func (l *leases) hold(address string, pod Pod) error {
	path := filepath.Join(l.dir, address)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		text, _ := os.ReadFile(path) // whose it is
		owner, _, _ := strings.Cut(string(text), disk.LineBreak)
		return &TakenError{address, owner}
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("the network was removed meanwhile")
	case err != nil:
		return fmt.Errorf("lease %s: %w", address, err)
	}
	_, err = file.WriteString(pod.ID + disk.LineBreak + pod.Interface)
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(fmt.Errorf("lease %s: %w", address, err), os.Remove(path))
	}
	return nil
}

// next leases the next free address after the one that was leased last: one that was given back rests for as
// long as can be.
func (l *leases) next(subnet netip.Prefix, rangeID string, pod Pod) (netip.Addr, error) {
	gateway, end := network.Ends(subnet)
	start := end
	if ip, err := l.LastReservedIP(rangeID); err == nil {
		if last, ok := netip.AddrFromSlice(ip); ok && subnet.Contains(last.Unmap()) {
			start = last.Unmap()
		}
	}
	if start.Compare(gateway) <= 0 || start.Compare(end) > 0 {
		start = end
	}
	for address := start; ; {
		if address = address.Next(); address.Compare(end) > 0 {
			address = gateway.Next()
		}
		ok, err := l.Reserve(pod.ID, pod.Interface, address.AsSlice(), rangeID)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return address, errors.New("the network was removed meanwhile")
		case err != nil:
			return address, fmt.Errorf("lease %s: %w", address, err)
		case ok:
			return address, nil
		case address == start:
			return address, &ExhaustedError{Subnet: subnet}
		}
	}
}

// drop gives back a pod's addresses. The caller holds the lock.
func (l *leases) drop(pod Pod, a *Attachment) error {
	var held []string
	for _, address := range a.Addresses {
		held = append(held, address.Addr().String())
	}
	if a.MAC != "" {
		held = append(held, a.MAC)
	}
	for _, address := range held {
		path := filepath.Join(l.dir, address)
		text, err := os.ReadFile(path)
		if err == nil && string(text) == pod.ID+disk.LineBreak+pod.Interface { // it may be another pod's by now
			err = os.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("give back %s: %w", address, err)
		}
	}
	return nil
}

// release gives back the addresses that a knows of, or else any that the pod's interface has.
func (p Place) release(n Network, pod Pod, a *Attachment) error {
	if _, err := os.Stat(p.leaseDir(n)); errors.Is(err, fs.ErrNotExist) {
		return nil // opening the leases would make the folder
	}
	l, err := p.openLeases(n)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Lock(); err != nil {
		return fmt.Errorf("lock %s: %w", l.dir, err)
	}
	defer l.Unlock()
	if a != nil && (len(a.Addresses) > 0 || a.MAC != "") {
		return l.drop(pod, a)
	}
	if err := l.ReleaseByID(pod.ID, pod.Interface); err != nil {
		return fmt.Errorf("give back the addresses of %s: %w", pod.ID, err)
	}
	return nil
}

// Leases returns which pod has which address of a network, by the pods' ids. Of a CNI network only what its
// host-local plugin leases is known.
func (p Place) Leases(n Network) (map[netip.Addr]string, error) {
	if err := Check(n, nil); err != nil {
		return nil, err
	}
	files, err := os.ReadDir(p.leaseDir(n))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	leased := map[netip.Addr]string{}
	for _, file := range files {
		address, err := netip.ParseAddr(file.Name())
		if err != nil {
			continue // last_reserved_ip.0, lock
		}
		text, err := os.ReadFile(filepath.Join(p.leaseDir(n), file.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if id, _, _ := strings.Cut(string(text), disk.LineBreak); id != "" {
			leased[address] = id
		}
	}
	return leased, nil
}

// pods returns the ids of the pods that are attached to a network, in order.
func (p Place) pods(n Network) ([]string, error) {
	leased, err := p.Leases(n)
	if err != nil {
		return nil, err
	}
	var pods []string
	for _, id := range leased {
		pods = append(pods, id)
	}
	if n.isCNI() {
		known, err := p.podsCNI(n)
		if err != nil {
			return nil, err
		}
		pods = append(pods, known...)
	}
	slices.Sort(pods)
	return slices.Compact(pods), nil
}
