package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Timeouts of a whole list of plugins, if the caller's context has no shorter one.
const (
	addTimeout = 30 * time.Second
	delTimeout = 10 * time.Second // what can't be undone in that time won't be
)

// CheckPlugins looks whether all plugins that a conflist names are installed, those for addresses too.
// Errors: *NoPluginError.
func (p Place) CheckPlugins(n Network) error {
	if !n.isCNI() {
		return nil
	}
	list, err := n.parse(p.LeaseDir)
	if err == nil {
		err = p.findPlugins(list)
	}
	if err != nil {
		return fmt.Errorf("network %q: %w", n.Name, err)
	}
	return nil
}

func (p Place) findPlugins(list *libcni.NetworkConfigList) error {
	for _, plugin := range list.Plugins {
		for _, kind := range []string{plugin.Network.Type, plugin.Network.IPAM.Type} {
			if kind == "" {
				continue // no addresses
			}
			if _, err := invoke.FindInPath(kind, p.PluginPath); err != nil {
				return &NoPluginError{Plugin: kind, Path: p.PluginPath}
			}
		}
	}
	return nil
}

// parse reads the conflist. The network is called what podsh calls it; host-local gets our folder for its
// leases if the list names none.
func (n Network) parse(leaseDir string) (*libcni.NetworkConfigList, error) {
	list, err := libcni.NetworkConfFromBytes(n.Conflist)
	if err != nil {
		return nil, fmt.Errorf("CNI configuration: %w", err)
	}
	if len(list.Plugins) == 0 {
		return nil, errors.New("CNI configuration: it names no plugins")
	}
	list.Name = n.Name
	for i, plugin := range list.Plugins {
		if plugin.Network.IPAM.Type != "host-local" {
			continue
		}
		var config struct {
			IPAM map[string]any `json:"ipam"`
		}
		if err := json.Unmarshal(plugin.Bytes, &config); err != nil {
			return nil, fmt.Errorf("CNI configuration: plugin %s: %w", plugin.Network.Type, err)
		}
		if dir, _ := config.IPAM["dataDir"].(string); dir != "" {
			continue
		}
		config.IPAM["dataDir"] = leaseDir
		if list.Plugins[i], err = libcni.InjectConf(plugin, map[string]any{"ipam": config.IPAM}); err != nil {
			return nil, fmt.Errorf("CNI configuration: plugin %s: %w", plugin.Network.Type, err)
		}
	}
	return list, nil
}

// open reads the conflist, and makes ready to run it for a pod.
func (p Place) open(n Network, pod Pod) (*libcni.CNIConfig, *libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	list, err := n.parse(p.LeaseDir)
	if err == nil {
		err = p.findPlugins(list)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	rt := &libcni.RuntimeConf{ContainerID: pod.ID, IfName: pod.Interface, Args: [][2]string{{"IgnoreUnknown", "1"}}}
	for _, ip := range pod.IPs { // as plugins of addresses and of interfaces know it
		rt.Args = append(rt.Args, [2]string{"IP", ip.String()})
	}
	if pod.MAC != "" {
		rt.Args = append(rt.Args, [2]string{"MAC", pod.MAC})
	}
	if pod.NetNS != nil {
		// Not self: the plugin is who opens it.
		rt.NetNS = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), pod.NetNS.Fd())
	}
	return libcni.NewCNIConfigWithCacheDir(p.PluginPath, p.CacheDir, &plugins{}), list, rt, nil
}

func (p Place) attachCNI(ctx context.Context, n Network, pod Pod) (*Attachment, error) {
	cni, list, rt, err := p.open(n, pod)
	if err != nil {
		return nil, err
	}
	if known, _ := cni.GetNetworkListCachedResult(list, rt); known != nil {
		return nil, fmt.Errorf("%s: %w", pod.Interface, ErrAttached)
	}
	if err := p.leaseMAC(n, pod); err != nil { // plugins don't look whether another pod has it
		return nil, err
	}
	adding, cancel := context.WithTimeout(ctx, addTimeout)
	defer cancel()
	result, err := cni.AddNetworkList(adding, list, rt)
	var a *Attachment
	if err == nil {
		a, err = attachment(n, pod, result)
	}
	if err == nil {
		err = a.is(pod)
	}
	if err != nil {
		// CNI specification, section 4: a runtime follows an ADD that failed with a DEL, and goes by the
		// first error.
		deleting, cancel := context.WithTimeout(context.WithoutCancel(ctx), delTimeout)
		defer cancel()
		_ = cni.DelNetworkList(deleting, list, rt)
		if pod.MAC != "" {
			err = errors.Join(err, p.release(n, pod, &Attachment{MAC: pod.MAC}))
		}
		return nil, err
	}
	return a, nil
}

// is says whether the plugins gave what was asked for: they may know nothing of it.
func (a *Attachment) is(pod Pod) error {
	for _, ip := range pod.IPs {
		if !slices.ContainsFunc(a.Addresses, func(has netip.Prefix) bool { return has.Addr() == ip }) {
			return fmt.Errorf("its plugins gave %v, not %s", a.Addresses, ip)
		}
	}
	if pod.MAC != "" && !strings.EqualFold(a.MAC, pod.MAC) {
		return fmt.Errorf("its plugins gave the hardware address %q, not %s", a.MAC, pod.MAC)
	}
	return nil
}

func (p Place) detachCNI(ctx context.Context, n Network, pod Pod) error {
	cni, list, rt, err := p.open(n, pod)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, addTimeout)
		defer cancel()
		err = cni.DelNetworkList(ctx, list, rt)
	}
	if err == nil || pod.NetNS == nil {
		// Its links are gone, with the namespace if not by the plugins, so its addresses are free, whatever those say.
		return errors.Join(err, p.release(n, pod, nil))
	}
	return err
}

// podsCNI returns the pods that libcni remembers to have added.
func (p Place) podsCNI(n Network) ([]string, error) {
	known, err := libcni.NewCNIConfigWithCacheDir(p.PluginPath, p.CacheDir, nil).GetCachedAttachments("")
	if err != nil {
		return nil, fmt.Errorf("read the CNI cache in %s: %w", p.CacheDir, err)
	}
	var pods []string
	for _, attachment := range known {
		if attachment.Network == n.Name {
			pods = append(pods, attachment.ContainerID)
		}
	}
	return pods, nil
}

// attachment puts a result of plugins, whichever version of the specification they follow, in our words.
func attachment(n Network, pod Pod, result types.Result) (*Attachment, error) {
	text, err := json.Marshal(result)
	if err != nil {
		return nil, fmt.Errorf("result of the plugins: %w", err)
	}
	r, err := types100.NewResultFromResult(result)
	if err != nil {
		return nil, fmt.Errorf("result of the plugins: %w", err)
	}
	if slices.Contains(r.Interfaces, nil) || slices.Contains(r.IPs, nil) || slices.Contains(r.Routes, nil) {
		return nil, errors.New("result of the plugins: null in place of an interface, an address or a route")
	}
	a := &Attachment{Network: n.Name, Interface: pod.Interface, CNIResult: text}
	for _, link := range r.Interfaces {
		switch {
		case link.Sandbox == "":
			a.HostInterface = link.Name // a bridge comes before what is put on it
		case link.Name == pod.Interface:
			a.MAC, a.MTU = link.Mac, link.Mtu
		}
	}
	for _, ip := range r.IPs {
		if i := ip.Interface; i != nil && *i >= 0 && *i < len(r.Interfaces) && r.Interfaces[*i].Sandbox == "" {
			continue // the host's
		}
		if address, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			bits, _ := ip.Address.Mask.Size()
			a.Addresses = append(a.Addresses, netip.PrefixFrom(address.Unmap(), bits))
		}
		if gateway, ok := netip.AddrFromSlice(ip.Gateway); ok {
			a.Gateways = append(a.Gateways, gateway.Unmap())
		}
	}
	for _, route := range r.Routes {
		if bits, _ := route.Dst.Mask.Size(); bits == 0 && route.Dst.IP.IsUnspecified() {
			a.Default = true
		}
	}
	return a, nil
}
