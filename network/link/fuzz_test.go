package link

import (
	"testing"

	"github.com/containernetworking/cni/pkg/types/create"
)

// FuzzResult: plugins are programs of others', and what they print is taken apart in podsh.
func FuzzResult(f *testing.F) {
	for _, text := range []string{
		`{"cniVersion":"1.0.0","interfaces":[{"name":"br0"},{"name":"eth0","mac":"02:00:00:00:00:01","mtu":1500,"sandbox":"/x"}],` +
			`"ips":[{"interface":1,"address":"10.1.2.3/24","gateway":"10.1.2.1"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.1.2.1"}],"dns":{}}`,
		`{"cniVersion":"0.3.1","ips":[{"version":"4","interface":-1,"address":"10.1.2.3/24"}],"interfaces":[{}]}`,
		`{"cniVersion":"1.1.0","interfaces":[null],"ips":[null],"routes":[null]}`,
		`{"cniVersion":"0.2.0","ip4":{"ip":"10.1.2.3/24","routes":[{"dst":"0.0.0.0/0"}]},"ip6":{}}`,
		`{"cniVersion":"1.0.0","ips":[{"interface":9,"address":"fd00::1/64"}]}`, `{}`, `null`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		result, err := create.CreateFromBytes(text)
		if err != nil || result == nil {
			return
		}
		a, err := attachment(Network{Name: "n"}, Pod{ID: "p", Interface: "eth0"}, result)
		if err != nil {
			return
		}
		for _, address := range a.Addresses {
			if !address.IsValid() {
				t.Errorf("%s: %v", text, address)
			}
		}
		for _, gateway := range a.Gateways {
			if !gateway.IsValid() || gateway.Is4In6() {
				t.Errorf("%s: gateway %v", text, gateway)
			}
		}
	})
}

// FuzzConflist: a configuration is the user's, from a file of anybody's.
func FuzzConflist(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24"}]]}}]}`))
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"bridge","ipam":{"type":"host-local","dataDir":7}},null]}`))
	f.Add([]byte(`{"name":"x","plugins":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := Network{Name: "n", Conflist: text}.parse("/leases")
		if err == nil && (list.Name != "n" || len(list.Plugins) == 0) {
			t.Errorf("%s: %+v", text, list)
		}
	})
}
