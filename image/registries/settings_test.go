package registries

import "testing"

// TestNetworkOfRegistries: docker's insecure-registries may be a network.
func TestNetworkOfRegistries(t *testing.T) {
	for name, want := range map[string]int{"10.1.2.3/web": 8, "10.1.2.3:5000/web": 13, "11.1.2.3/web": 0, "host.test/web": 0, "[::1]:80/web": 0} {
		if got := (&Rule{Prefix: "10.0.0.0/8"}).matches(name); got != want {
			t.Errorf("%s: %d, not %d", name, got, want)
		}
	}
}
