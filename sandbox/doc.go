// Package sandbox knows what a pod is, and how one is made, entered, seen and removed. It is the only package
// that knows the order of things; nsenter carries plans out, rootfs and network know what they consist of,
// and only package main prints.
//
// # The story of one pod
//
// A pod is a set of Linux namespaces, and one process that holds them open: the pause program, PID 1 inside.
// There is no daemon. What podsh writes to disk (Store) only says where that process is.
//
//	flags -> Spec -> planCreate(Pod, Facts) Plan -+-> Explain    why, by hand, man page   (prints)
//	        (data)        (pure, no I/O)          +-> Script     the same steps as sh     (prints)
//	                                              +-> perform    the same steps as calls  (does)
//
// Spec is what the user asked for. Facts are what this machine is like: who we are, which ids may be mapped,
// what the root is made of. resolve puts both together into a Pod: which namespaces are new, which ids are
// mapped. From then on everything is decided, and planCreate writes it down as a list of steps (Plan). A
// step of the host's side is a Go function (hostCalls); a step of the pod's side is one system call, and
// says why it is made and how to do the same by hand.
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
// processes, all started by plans as well (helper.go, maker.go, keeper.go):
//
//	podsh@net helper  in the host's namespaces, without a capability: carries the data. It is a program of its
//	                  own (package network/helper), since it is heavy. It ends with the pod it leads with.
//	podsh-keeper      an executor that waits for the helper's end, and then starts another, with the same ports
//	podsh@hold        a Maker: an executor in the pod's user and network namespaces, which makes the sockets
//	                  there that the helper asks for, and passes them out.
//	podsh@net work    for a moment, where networks are: puts one end of a veth(4) into the pod.
//
// Without root networks are in a hub, a pod whose user namespace is the parent of those of all pods on them
// (hub.go). What a pod's network is like now is in NetState, beside the description, which does not change.
//
// # Its containers
//
// A container is one more plan (plan_container.go): it joins the pod's namespaces where create makes new ones, builds
// a root by the same steps, and ends in the command where create ends in the pause. The executor becomes the
// command, a child of whoever sent the plan: podsh run, or the pod's supervisor.
//
//	podsh run            in the foreground: the parent of the command, which ends with it
//	podsh@supervise      with -d or -t: one for each pod, while there are such containers (supervisor.go,
//	                     supervised.go); logs (package crilog), restarts, terminals, who is attached
//	podsh@image          on the host: registries and archives (layers.go)
//	podsh@unpack         the same program, alone in a folder: unpacks a layer (unpacker.go)
//	podsh@copy           alone in a container's root: reads or writes a tar, for podsh cp (copier.go)
//	podsh@remove         in a user namespace like the pod's: removes what a container wrote (upper.go)
//
// What a container is, is in Container, and what it is doing in ContainerState, both beside its pod's description
// (container_state.go). Who watches over a container writes its state; when that one is killed, whoever looks next
// finds out by the identities of both processes, and settles it.
//
// To read on: plan.go (what is done, in order), plan_root.go, plan_mount.go and plan_finish.go (the root), create.go (how it
// is carried out), join.go; plan_net.go, attach.go and served.go (the network).
package sandbox
