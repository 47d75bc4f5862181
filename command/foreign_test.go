package command

import (
	"slices"
	"strings"
	"testing"
)

// What docker and podman have is never taken for a mistyped word of podsh's.
func TestForeignFlags(t *testing.T) {
	foreign := strings.Fields(`add-host annotation arch attach authfile blkio-weight cap-add cap-drop cert-dir cgroup-parent cgroupns cidfile
		cpu-period cpu-quota cpu-shares cpus cpuset-cpus cpuset-mems creds details detach detach-keys device device-cgroup-rule
		disable-content-trust dns dns-option dns-search domainname entrypoint env env-file env-host env-merge expose external filter
		follow format gidmap gpus group-add group-entry health-cmd health-interval health-retries health-timeout hostname hostuser
		http-proxy image-volume init init-ctr init-path interactive ip ip6 ipc isolation kernel-memory label label-file last latest link
		link-local-ip log-driver log-opt mac-address memory memory-reservation memory-swap memory-swappiness mount namespace
		network network-alias no-healthcheck no-hosts no-hostname no-stdin no-trunc oom-kill-disable oom-score-adj os passwd
		passwd-entry pid pidfile pids-limit platform pod-id-file preserve-fds privileged publish publish-all pull quiet rdt-class
		read-only read-only-tmpfs replace requires restart retry rm rmi runtime sdnotify seccomp-policy secret security-opt shm-size
		sig-proxy since size sort stop-signal stop-timeout storage-opt subgidname subuidname sync sysctl systemd tail timeout
		timestamps tls-verify tmpfs tty type tz uidmap ulimit umask unsetenv unsetenv-all until user userns uts variant volume
		volume-driver volumes volumes-from watch workdir`)
	for _, command := range allCommands(wholeApp()) {
		known := flagNames(command.Command)
		for _, name := range foreign {
			if hint := insteadOfFlag(command.names[0], name, slices.Clone(known), ""); !slices.Contains(known, name) && strings.Contains(hint, "did you mean") {
				t.Errorf("podsh %s --%s: %s", command.names[0], name, hint)
			}
		}
	}
	run := flagNames(Run())
	for typo, meant := range map[string]string{"nmae": "--name", "volum": "--volume", "hostnme": "--hostname", "entrypiont": "--entrypoint", "enf": "--env", "intractive": "--interactive"} {
		if hint := insteadOfFlag("run", typo, slices.Clone(run), ""); hint != "did you mean "+meant+"? " {
			t.Errorf("--%s: %q", typo, hint)
		}
	}
}

// What a hint says instead is something that the very command has a use for.
func TestForeignFlagsOfCommands(t *testing.T) {
	for line, want := range map[string]string{
		"image ls a": "", "image pull a": "", "image prune filter": "", "network create format": "",
		"image ls no-trunc": "podsh image ls --json | jq", "image history no-trunc": "podsh image history --json | jq",
		"network ls format": "podsh network ls --json | jq", "network ls f": "podsh network ls --json | jq",
		"image ls filter": "podsh image ls --json | jq", "ps filter": "podsh ps --json | jq",
		"inspect format": "podsh inspect NAME | jq", "inspect f": "podsh inspect NAME | jq",
		"image inspect format": "podsh image inspect NAME | jq", "network inspect f": "podsh network inspect NAME | jq",
		"network rm f": unasked, "image rm force": unasked, "run a": attached, "kill 9": "podsh kill -s 9 NAME", "kill KILL": "podsh kill -s KILL NAME",
		"kill 99": "", "network connect ip6": foreignFlagsOf["network connect ip6"], "run ip6": onNetwork,
	} {
		i := strings.LastIndex(line, " ")
		var known []string
		for _, command := range allCommands(wholeApp()) {
			if slices.Contains(command.names, line[:i]) {
				known = flagNames(command.Command)
			}
		}
		if hint := insteadOfFlag(line[:i], line[i+1:], known, ""); hint != want {
			t.Errorf("podsh %s: %q", line, hint)
		}
	}
	for key := range foreignFlagsOf {
		i := strings.LastIndex(key, " ")
		for _, command := range allCommands(wholeApp()) {
			if slices.Contains(command.names, key[:i]) && slices.Contains(flagNames(command.Command), key[i+1:]) {
				t.Errorf("podsh %s has a flag %s", key[:i], key[i+1:])
			}
		}
	}
}

func TestForeignCommands(t *testing.T) {
	foreign := strings.Fields(`attach auto-update build builder buildx commit compose container config context cp create diff events exec exists export
		farm generate healthcheck history images import info init inspect kill kube load login logout logs machine manifest mount
		network node pause play plugin pod port ps pull push quadlet rename restart rm rmi run save search secret service stack start
		stats stop swarm system tag top trust unmount unpause unshare untag update version volume wait
		get describe apply delete debug expose`)
	app := wholeApp()
	for _, word := range foreign {
		if app.Command(word) != nil {
			continue
		}
		if hint := insteadOfCommand(word, app.Commands, "podsh"); strings.Contains(hint, "did you mean") {
			t.Errorf("podsh %s: %s", word, hint)
		}
	}
	for typo, meant := range map[string]string{"craete": "create", "lst": "ls", "doctr": "doctor", "jion": "join", "netwrok": "network"} {
		if hint := insteadOfCommand(typo, app.Commands, "podsh"); !strings.Contains(hint, "did you mean `podsh "+meant+"`?") {
			t.Errorf("podsh %s: %s", typo, hint)
		}
	}
}
