# shellcheck shell=bash
# What the scripts beside this file share. They source it; it moves to the top of the tree.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# An ordinary user of Debian has no sbin in PATH, and root by sudo no Go.
PATH=$PATH:/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin
export PATH

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi

heading() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
note() { printf '%s%s%s\n' "$dim" "$*" "$plain"; }

# die MESSAGE [HINT]: the voice of podsh itself.
die() {
	printf '%s: error: %s\n' "${0##*/}" "$1" >&2
	[ $# -lt 2 ] || printf '%s: hint: %s\n' "${0##*/}" "$2" >&2
	exit 1
}

is_root() { [ "$(id -u)" = 0 ]; }

can_install() { is_root && command -v apt-get >/dev/null; }

# have THING: a program, a file, or (lib*.a) a library that gcc finds.
have() {
	case $1 in
	/*) [ -e "$1" ] ;;
	lib*.a) [ -e "$("${CC:-gcc}" -print-file-name="$1" 2>/dev/null)" ] ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

# need THING=PACKAGE...: what is missing is installed when we are root; else the one line that does it is said.
need() {
	local pair packages=()
	for pair; do
		have "${pair%%=*}" || packages+=("${pair#*=}")
	done
	[ ${#packages[@]} -gt 0 ] || return 0
	if ! can_install; then
		die "this needs packages that are not here: ${packages[*]} (Debian's names)" \
			"sudo apt-get install -y --no-install-recommends ${packages[*]}"
	fi
	note "installing ${packages[*]}"
	install_packages "${packages[@]}"
}

# need_pods PODSH: pods can be made here; else why not, and the one line that mends it, as `podsh doctor` says them.
need_pods() {
	local said why fix
	said=$("$1" doctor) && return
	why=$(sed -n 's/^fail  //p' <<<"$said" | tr -s ' ')
	fix=$(sed -n '/^fail/,$ s/^ *fix:  //p' <<<"$said" | head -n 1)
	die "no pods can be made here: ${why:-podsh doctor does not say why}" "${fix:-podsh doctor tells more}"
}

# need_userns: programs without a profile of AppArmor's may make user namespaces, as tests do, which are new files each time.
need_userns() {
	local file=/proc/sys/kernel/apparmor_restrict_unprivileged_userns
	[ "$(cat "$file" 2>/dev/null)" != 1 ] || die "AppArmor keeps programs that have no profile, and so the tests, from using user namespaces" \
		"sudo sysctl -w kernel.${file##*/}=0    # and =1 when they have ended"
}

# Debian starts the service that comes with a package, unless policy-rc.d says no: a proxy for a demo in a
# pod has no business on the host's port 80.
install_packages() (
	export DEBIAN_FRONTEND=noninteractive
	log=$(mktemp)
	policy=/usr/sbin/policy-rc.d
	if [ -e "$policy" ]; then
		trap 'rm -f "$log"' EXIT
	else
		trap 'rm -f "$log" "$policy"' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	install=(apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@")
	# The lists are fetched only if the ones that are here don't do.
	"${install[@]}" >"$log" 2>&1 </dev/null && exit
	apt-get update -o DPkg::Lock::Timeout=300 >>"$log" 2>&1 </dev/null || true
	"${install[@]}" >>"$log" 2>&1 </dev/null && exit
	tail -n 20 "$log" >&2
	die "apt-get could not install: $*"
)

# Go itself fetches the version that go.mod asks for, from 1.21 on.
need_go() {
	local wanted version
	wanted=$(awk '$1 == "go" {print $2; exit}' go.mod)
	have go || die "Go is not here" "get Go $wanted from https://go.dev/dl/ and put its bin folder in PATH"
	version=$(go env GOVERSION 2>&1) || die "$version" "get Go $wanted from https://go.dev/dl/"
	case $version in
	go1.?|go1.?.*|go1.1?|go1.1?.*|go1.20|go1.20.*)
		die "$version is too old" "get Go $wanted from https://go.dev/dl/" ;;
	esac
}

# What scripts/build builds with, for need. With musl a static binary starts a millisecond faster than with
# glibc, which relocates itself and asks after the processor first: that is half of a plain join. But with
# glibc it works as well, so nobody is sent to install another one.
# shellcheck disable=SC2034 # compiler is for those who source this
native_compiler() {
	if have musl-gcc || can_install; then
		compiler=(gcc=gcc musl-gcc=musl-tools)
	else
		compiler=(gcc=gcc libc.a=libc6-dev)
	fi
}

# is_built FILE: a podsh that is newer than all that it is made of.
is_built() {
	[ -x "$1" ] && [ -z "$(find . -path ./.git -prune -o \
		\( -name '*.go' -o -name '*.[ch]' -o -name 'go.*' \) ! -name '*_test.go' -newer "$1" -print -quit)" ]
}

# A user who can make pods as most people do: an ordinary one, with ranges of ids of their own.
ensure_test_user() {
	test_user=${PODSH_TEST_USER:-podsh-test}
	if ! id "$test_user" >/dev/null 2>&1; then
		note "making the ordinary user $test_user (\`userdel -r $test_user\` removes it)"
		useradd --create-home --shell /bin/bash "$test_user"
	fi
	local file
	for file in /etc/subuid /etc/subgid; do
		grep -q "^$test_user:" "$file" 2>/dev/null || add_range "$file"
	done
}

# add_range FILE: 65536 ids above all that were ever given away.
add_range() {
	awk -F: -v user="$test_user" '$2 + $3 > end {end = $2 + $3}
		END {if (end < 100000) end = 100000; printf "%s:%d:65536\n", user, end}' "$1" 2>/dev/null >"$1.new" ||
		printf '%s:100000:65536\n' "$test_user" >"$1.new"
	cat "$1.new" >>"$1"
	rm "$1.new"
}

# What the tests use of the machine, besides Go.
need_for_tests() {
	native_compiler
	need "${compiler[@]}" libc.a=libc6-dev newuidmap=uidmap unshare=util-linux setpriv=util-linux ip=iproute2 \
		strace=strace xz=xz-utils bzip2=bzip2 zstd=zstd busybox=busybox-static ps=procps useradd=passwd script=bsdutils \
		nginx=nginx-light curl=curl socat=socat ping=iputils-ping dig=bind9-dnsutils dnsmasq=dnsmasq-base nft=nftables \
		slirp4netns=slirp4netns pasta=passt skopeo=skopeo umoci=umoci mmdebstrap=mmdebstrap jq=jq perl=perl \
		docker-registry=docker-registry podman=podman zsh=zsh fish=fish
	open_tun
}

# open_tun: ways out take /dev/net/tun, which distributions leave open to everybody (udev's rules do); on a bare
# machine it may be root's alone, or not be there.
open_tun() {
	is_root || return 0
	if [ ! -e /dev/net/tun ]; then
		mkdir -p /dev/net
		mknod -m 666 /dev/net/tun c 10 200 || die "there is no /dev/net/tun" "modprobe tun"
	elif [ "$(stat -c %a /dev/net/tun)" != 666 ]; then
		note "opening /dev/net/tun to everybody, as udev does"
		chmod 666 /dev/net/tun
	fi
}
