package store

// ControlName is the socket of a helper, in the folder of the pod that it leads with.
const ControlName = "control"

// SupervisorName is the socket of a pod's supervisor, in the pod's folder.
const SupervisorName = "supervisor"
