package pod

// Identity is who a command is in a pod.
type Identity struct {
	UID, GID uint32
	Groups   []uint32
	Name     string
	Home     string
	Shell    string
}
