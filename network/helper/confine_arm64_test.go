package helper

// legacyHoles: arm64 has no calls besides.
func legacyHoles(call func(nr uintptr, args ...uintptr) func() error, _ uintptr) map[string]func() error {
	return map[string]func() error{"a call of no kind": call(5000)}
}
