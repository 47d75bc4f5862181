// Package sandbox is the life of pods, containers and networks: the verbs with which they are created, entered, stopped
// and removed. It is the only package that knows the order of things, and each part of the work is done by a package
// below it. It refuses to know command lines and what users read; only package command prints. When a
// detached container starts again is for package supervise, and what is seen of a pod for package view: those two stand
// above it.
//
// # The packages below
//
// Each imports only what stands above it in this list (command/imports_test.go says which of those), and its own page
// says what it refuses to know.
//
//	fault      errors with hints, the nearest word              (imports nothing of podsh's)
//	files      whole files, locks, paths below a root           (imports nothing of podsh's)
//	ids        maps and ranges of ids
//	spec       what was asked for, parsed and checked
//	proc       a process by its identity: signal, wait, /proc
//	pod        what was decided of a pod, and written down
//	step       what plans consist of, and how they are shown
//	plan       Facts, and the steps of what podsh does; looks at nothing
//	store      the folder of descriptions
//	doctor     why the kernel refuses, and what mends it
//	perform    carries a plan's calls out, whosever it is
//	machine    reads the facts
//	disk       what is written, volumes, unpacked layers
//	ask        words and client of the supervisor
//	wire       a pod's network, from outside
//	tarcopy    a tar into and out of a root that nobody trusts  (imports nothing of podsh's)
//	container  runs commands: of containers, of joins, of copies
//	sandbox    the verbs
//	crilog     containers' logs                                 (imports nothing of podsh's)
//	supervise  the supervisor's process
//	view       the kernel's state as data
//
// # The story of one pod
//
// A pod is a set of Linux namespaces, and one process that holds them open: the pause program, PID 1 inside.
// There is no daemon. What podsh writes to disk (store.Store) only says where that process is.
//
//	flags -> spec.Spec -> plan.Create(Pod, Facts) Plan -+-> Explain    why, by hand, man page   (prints)
//	          (data)          (pure, no I/O)            +-> Script     the same steps as sh     (prints)
//	                                                    +-> perform    the same steps as calls  (does)
//
// spec.Spec is what the user asked for. plan.Facts are what this machine is like, read by package machine: who we are,
// which ids may be mapped, what the root is made of. plan.Resolve puts both together into a pod.Pod: which namespaces
// are new, which ids are mapped. From then on everything is decided, and plan.Create writes it down as a list of steps.
// A step of the host's side is a Go function here (hostCalls); a step of the pod's side is one system call, which
// package perform sends to an executor (package nsenter). Each says why it is made and how to do the same by hand.
//
//	podsh create (Go, host)                       podsh@hold (C, before Go starts; nsenter.c)
//	-----------------------                       -------------------------------------------
//	the constructor forks an executor   ........> waits for a plan
//	flags -> Spec, first Facts -> Pod
//	send the first steps                -------->  clone(2) into the new namespaces, go on in there;
//	the other Facts, the rest of the plan          start podsh's file anew, so that its memory belongs
//	                                    <--------  to the new user namespace; the clone's pid
//	write uid_map and gid_map, or let
//	newuidmap and newgidmap do it
//	send the plan                       -------->  take what the pod sees of the host, pivot_root(2), mount
//	describe the pod meanwhile                     it all, host name, loopback, give up every capability;
//	                                    <--------  done, or which call failed and how
//	write the description, rename it into place
//	send the last step                  -------->  be the pause program
//	print the id
//
// Until the last step the executor ends when its socket does: whenever podsh create dies, by Ctrl-C or
// SIGKILL, the kernel closes that, and the pod is gone with all its mounts.
//
// A join is a plan as well: setns(2) with the holder's pidfd into all namespaces at once, the user's ids and a pod's
// capabilities, clone(2) (who enters a pid namespace is not in it, its children are), execve(2).
// create saves the plan of a plain join, which nsenter.c runs without starting Go.
//
// # Its network
//
// A pod's network has nothing but localhost, until more is asked for. What is more takes four kinds of
// processes, all started by plans as well (package wire):
//
//	podsh@net helper  in the host's namespaces, without a capability: carries the data. It is a program of its
//	                  own (package network/helper), since it is heavy. It ends with the pod it leads with.
//	podsh-keeper      an executor that waits for the helper's end, and then starts another, with the same ports
//	podsh@hold        a perform.Maker: an executor in the pod's user and network namespaces, which makes the sockets
//	                  there that the helper asks for, and passes them out.
//	podsh@net work    for a moment, where networks are: puts one end of a veth(4) into the pod.
//
// Without root networks are in a hub, a pod whose user namespace is the parent of those of all pods on them
// (hub.go). What a pod's network is like now is in pod.NetState, beside the description, which does not change.
//
// # Its containers
//
// A container is one more plan (plan.Container): it joins the pod's namespaces where create makes new ones, builds
// a root by the same steps, and ends in the command where create ends in the pause. The executor becomes the
// command, a child of whoever sent the plan: podsh run, or the pod's supervisor (package supervise), which
// commands ask for that (package ask).
//
//	podsh run            in the foreground: the parent of the command, which ends with it
//	podsh@supervise      with -d or -t: one for each pod, while there are such containers
//	                     (package supervise); logs (package crilog), restarts, terminals, who is attached
//	podsh@image          on the host: registries and archives (package disk asks it)
//	podsh@unpack         the same program, alone in a folder: unpacks a layer (package disk)
//	podsh@copy           alone in a container's root: reads or writes a tar, for podsh cp
//	                     (packages container and tarcopy)
//	podsh@remove         in a user namespace like the pod's: removes what a container wrote
//	                     (package disk)
//
// What a container is, is in pod.Container, and what it is doing in pod.ContainerState, both beside its pod's description
// (package store). Who watches over a container writes its state; when that one is killed, whoever looks next
// finds out by the identities of both processes, and settles it.
//
// To read on: plan/plan.go (what is done, in order), plan/root.go, plan/mount.go and plan/finish.go (the root), create.go
// (how it is carried out), container/join.go and container/run.go; plan/net.go, attach.go and package wire (the network).
package sandbox
