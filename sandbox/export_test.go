package sandbox

// For the tests of what is above this package.
var (
	Handmade = handmade
	NewStore = newStore
)
