package command

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/proc"
)

// What people type who know docker, podman or kubectl. A word that means something there is never taken for a mistyped one of
// podsh's: its hint is what podsh has for it, or where to look.

// foreignCommands are such commands, and what does the same.
var foreignCommands = map[string]string{
	"pull":      "podsh image pull IMAGE",
	"images":    "podsh image ls",
	"rmi":       "podsh image rm IMAGE",
	"tag":       "podsh image tag IMAGE NAME",
	"untag":     "podsh image rm NAME takes a name away, and with the last one the image",
	"save":      "podsh image save -o FILE IMAGE",
	"load":      "podsh image load -i FILE",
	"import":    "podsh image import FILE NAME",
	"history":   "podsh image history IMAGE",
	"search":    asksRegistries,
	"manifest":  "podsh image inspect IMAGE; skopeo inspect --raw docker://IMAGE shows what a registry has",
	"prune":     "podsh image prune; podsh network prune; podsh rm --lost",
	"pod":       "podsh create makes one, podsh ps lists them",
	"container": "podsh ps -c lists containers; stop, rm, logs and others take POD/NAME",
	"build":     builds,
	"buildx":    builds,
	"builder":   builds,
	"commit":    builds,
	"push":      pushes,
	"export":    "podsh cp CONTAINER:/ - >FILE",
	"mount":     "podsh cp CONTAINER:/PATH - shows files of a container; podsh join CONTAINER goes there",
	"umount":    "podsh mounts nothing on the host",
	"unmount":   "podsh mounts nothing on the host",
	"diff":      "podsh inspect POD/NAME shows as disk where a container's own files are",
	"stats":     "podsh top POD",
	"volume":    "podsh run -v NAME:/DST; the volume goes with its pod",
	"login":     "podsh uses what docker login, podman login or skopeo login have stored",
	"logout":    "podsh uses what docker login, podman login or skopeo login have stored: log out there",
	"rename":    "a name stays: podsh run --name NEW makes another container",
	"update":    "podsh port and podsh network connect change a pod that runs; for the rest make it anew",
	"unpause":   "podsh kill -s CONT POD",
	"freeze":    "podsh kill -s STOP POD",
	"init":      "podsh run has an init: the pause of its pod",
	"secret":    "podsh run -v ./FILE:/run/secrets/NAME:ro",
	"config":    "podsh run -v ./FILE:/PATH:ro",
	"info":      "podsh doctor",
	"events":    "podsh wait POD/NAME waits for an end; podsh logs -f follows the output",
	"unshare":   "podsh create --name POD; podsh join POD",
	"exists":    "podsh inspect NAME >/dev/null",
	"system":    "podsh doctor; podsh image prune; podsh rm --lost",
	"compose":   services,
	"stack":     services,
	"swarm":     services,
	"service":   services,
	"node":      services,
	"kube":      services,
	"play":      services,
	"apply":     services,
	"generate":  services,
	"quadlet":   services,
	"machine":   "podsh needs Linux, and no virtual machine",
	"context":   "podsh has no daemon to choose",
	"plugin":    "podsh network create --conflist FILE takes CNI's",
	"get":       "podsh ps",
	"describe":  "podsh inspect NAME",
	"delete":    "podsh rm -f NAME",
	"debug":     "podsh run -it --rm --pod POD busybox",
	"expose":    "podsh port add POD HOST:POD",
}

// foreignCommandsOf are those of commands that have others.
var foreignCommandsOf = map[string]string{
	"image build":    builds,
	"image delete":   "podsh image rm IMAGE",
	"image diff":     "podsh image history IMAGE shows what made it",
	"image exists":   "podsh image inspect IMAGE >/dev/null",
	"image mount":    "podsh run IMAGE CMD runs a command in it; podsh image save --format oci -o DIR IMAGE writes it to a folder",
	"image push":     pushes,
	"image remove":   "podsh image rm IMAGE",
	"image scp":      "podsh image save IMAGE | ssh HOST podsh image load",
	"image search":   asksRegistries,
	"image tree":     "podsh image history IMAGE",
	"image untag":    "podsh image rm NAME takes a name away, and with the last one the image",
	"network delete": "podsh network rm NETWORK",
	"network exists": "podsh network inspect NETWORK >/dev/null",
	"network list":   "podsh network ls",
	"network reload": "nothing is needed for it: podsh's helpers keep networks as they are",
	"network remove": "podsh network rm NETWORK",
	"network update": "--dns of podsh create chooses a pod's name servers; for the rest make the network anew",
	"port list":      "podsh port ls [POD...]",
	"port delete":    "podsh port rm POD PORT",
	"port remove":    "podsh port rm POD PORT",
	"port expose":    "podsh port add POD HOST:POD",
	"port publish":   "podsh port add POD HOST:POD",
}

const (
	pushes         = "podsh image save -o FILE IMAGE; skopeo copy docker-archive:FILE docker://IMAGE brings that to a registry"
	builds         = "podsh builds no images: buildah, umoci and others do, and podsh image load takes them"
	asksRegistries = "podsh asks registries for images by name only; skopeo list-tags docker://NAME lists the tags of one"
	services       = "podsh runs pods on this machine, one command each; a script is the way to make several"
)

const onNetwork = "--net NETWORK:ip=ADDRESS,mac=ADDRESS,alias=NAME"

// foreignFlags are such flags.
var foreignFlags = map[string]string{
	"network":        "--net",
	"publish-all":    "-p HOST:CONTAINER, once for each port",
	"P":              "-p HOST:CONTAINER, once for each port",
	"expose":         "pods that share a network reach all ports; -p HOST:CONTAINER publishes one",
	"mount":          "--volume SRC:DST[:ro], or --tmpfs DST",
	"volumes-from":   "--volume NAME:DST in both: the containers of a pod share its volumes",
	"volumes":        "a volume goes with its pod: podsh rm POD",
	"link":           "--pod POD: the containers of a pod are each other's localhost",
	"ip":             onNetwork,
	"ip6":            onNetwork,
	"mac-address":    onNetwork,
	"network-alias":  onNetwork,
	"dns-opt":        "--dns-option",
	"privileged":     "--cap-add ALL --unmask all is as far as it goes",
	"security-opt":   "--cap-add, --cap-drop and --unmask; podsh sets no_new_privs anyway",
	"init":           "the pause of the pod is one; with --pid private the container has its own",
	"device":         "podsh shows those that do no harm: null, zero, full, random, urandom and tty",
	"gpus":           "podsh shows no devices but null, zero, full, random, urandom and tty",
	"group-add":      "--user UID:GID, or a user whose groups the image's /etc/group names",
	"userns":         "podsh create --keep-id, --uidmap or --userns --name POD, and podsh run --pod POD: its containers have the pod's ids",
	"ipc":            "of podsh create and podsh run",
	"uidmap":         "podsh create --uidmap IN:OUT:COUNT --name POD, and podsh run --pod POD",
	"gidmap":         "podsh create --gidmap IN:OUT:COUNT --name POD, and podsh run --pod POD",
	"umask":          "sh -c 'umask 027; exec CMD' as the command",
	"env-host":       "--env NAME takes your own value, once for each variable",
	"env-merge":      "--env NAME=VALUE",
	"unsetenv":       "--env NAME= makes it empty",
	"detach-keys":    "ctrl-p ctrl-q detaches",
	"replace":        "podsh rm -f NAME before it",
	"secret":         "--volume ./FILE:/run/secrets/NAME:ro",
	"shm-size":       "--tmpfs /dev/shm:size=256m",
	"systemd":        "nothing is needed for it but --tmpfs /run and --tmpfs /tmp",
	"log-driver":     "podsh logs shows the output; podsh logs -f CONTAINER | systemd-cat brings it to the journal",
	"log-opt":        "podsh keeps the last of the output by itself; podsh logs shows it",
	"health-cmd":     "podsh exec CONTAINER CMD tells how it is; --restart starts it once more when it ends",
	"no-healthcheck": "podsh runs none",
	"listen":         "podsh run --listen PORT IMAGE, or podsh join POD --listen PORT -- CMD: a socket is given to the command that accepts; a pod by itself has none",
	"tz":             "--env TZ=Europe/Berlin, or --volume /etc/localtime:/etc/localtime:ro",
	"cidfile":        "podsh run -d --name NAME, and that name",
	"pidfile":        "podsh inspect POD/NAME shows its pid",
	"arch":           "--platform linux/ARCH",
	"os":             "--platform OS/ARCH",
	"variant":        "--platform OS/ARCH/VARIANT",
	"force":          unasked,
	"f":              unasked,
	"type":           "podsh inspect takes pods and containers, podsh image inspect images",
	"last":           "podsh ps -a",
	"latest":         "podsh ps -a shows their names",
	"size":           "du -sh of the folder that podsh inspect POD/NAME shows as disk",
	"watch":          "watch podsh ps",
	"memory":         limits,
	"m":              limits,
	"cpus":           limits,
	"cpu-shares":     limits,
	"c":              limits,
	"pids-limit":     limits,
}

// foreignFlagsOf are those that mean something else with each command.
var foreignFlagsOf = map[string]string{
	"run attach":            attached,
	"run a":                 attached,
	"run sig-proxy":         "podsh run passes signals on; -d leaves it running",
	"run quiet":             "podsh image pull -q IMAGE before it",
	"run q":                 "podsh image pull -q IMAGE before it",
	"start attach":          "podsh attach POD/NAME after it; podsh logs -f shows its output from the beginning",
	"start a":               "podsh attach POD/NAME after it; podsh logs -f shows its output from the beginning",
	"attach sig-proxy":      "a signal ends podsh attach, and does nothing to the container: podsh kill sends it one",
	"join detach":           inBackground,
	"join d":                inBackground,
	"rm v":                  "leave it out: a volume goes with its pod",
	"stop all":              "podsh stop $(podsh ps -q)",
	"stop a":                "podsh stop $(podsh ps -q)",
	"network create driver": networkKinds,
	"network create d":      networkKinds,
	"network connect ip6":   "--ip ADDRESS takes one of IPv6 as well",
}

const (
	unasked      = "leave it out: podsh asks nobody before it does what it was told"
	attached     = "run is attached to the output, -i to the input as well; -d leaves it running"
	inBackground = "podsh join POD -- sh -c 'CMD >/dev/null 2>&1 &' leaves it running in there"
	networkKinds = "a network of podsh's is a bridge; --conflist FILE makes any that CNI plugins can"
)

const limits = "podsh has no limits by cgroups yet: systemd-run --user --scope -p MemoryMax=512M podsh … sets those of systemd"

// unknownFlags are those of docker and podman that podsh has nothing for.
var unknownFlags = strings.Fields(`annotation authfile blkio-weight blkio-weight-device cert-dir cgroup-conf cgroup-parent
	cgroupns cgroups chrootdirs conmon-pidfile cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpuset-cpus
	cpuset-mems creds decryption-key details device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops
	disable-content-trust domainname external group-entry health-interval health-log-destination
	health-on-failure health-retries health-start-interval health-start-period health-startup-cmd health-timeout
	hostuser http-proxy ignore image-volume init-ctr init-path io-maxbandwidth io-maxiops ip-masq isolation kernel-memory label-file
	link-local-ip memory-reservation memory-swap memory-swappiness namespace no-hostname no-hosts
	no-stdin noheading oom-kill-disable oom-score-adj passwd passwd-entry personality pod-id-file preserve-fd preserve-fds
	rdt-class read-only-tmpfs requires retry retry-delay rmi runtime sdnotify seccomp-policy shm-size-systemd sort storage-opt
	subgidname subuidname sync timeout tls-verify unsetenv-all use-api-socket volume-driver`)

// unknownCommands are those that podsh has nothing for.
var unknownCommands = []string{"auto-update", "farm", "healthcheck", "trust"}

// insteadOfCommand is the hint for a word that is none of the commands below where.
func insteadOfCommand(word string, commands []*cli.Command, where string) string {
	var names []string
	for _, command := range commands {
		names = append(names, command.Names()...)
	}
	hint := fmt.Sprintf("`%s --help` lists all commands", where)
	if instead := foreignCommands[word]; instead != "" && where == "podsh" {
		return instead
	}
	if instead := foreignCommandsOf[strings.TrimPrefix(where, "podsh ")+" "+word]; instead != "" {
		return instead
	}
	if near := fault.Nearest(word, names); near != "" && !slices.Contains(unknownCommands, word) {
		return fmt.Sprintf("did you mean `%s %s`? %s", where, near, hint)
	}
	if where == "podsh port" { // docker's and podman's way to list those of one
		return fmt.Sprintf("`podsh port ls %s`, if that is a pod; %s", word, hint)
	}
	return hint
}

// insteadOfFlag is the hint for a flag that a command, such as "port ls", has not. known are those that it has.
func insteadOfFlag(command, name string, known []string, help string) string {
	if hint := foreignFlagsOf[command+" "+name]; hint != "" {
		return hint
	}
	if slices.Contains([]string{"format", "f", "filter", "no-trunc"}, name) {
		switch {
		case slices.Contains(known, "json"):
			return fmt.Sprintf("podsh %s --json | jq", command)
		case strings.HasSuffix(command, "inspect"):
			return fmt.Sprintf("podsh %s NAME | jq", command)
		}
	}
	if _, err := proc.ParseSignal(name); err == nil && command == "kill" {
		return fmt.Sprintf("podsh kill -s %s NAME", name)
	}
	if hint := foreignFlags[name]; hint != "" {
		return hint
	}
	known = slices.DeleteFunc(known, func(flag string) bool { return len(flag) == 1 })
	if near := fault.Nearest(name, known); near != "" && len(name) > 1 && !slices.Contains(unknownFlags, name) {
		return fmt.Sprintf("did you mean %s? %s", dashed(near), help)
	}
	return help
}
