# shellcheck shell=bash
# What scripts/bench, bench-net and bench-run share: the users, the runs, and the lines of the table.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# need_podsh: built, and copied to where every user can read it, as all that is measured is.
need_podsh() {
	need_go
	if ! is_built podsh; then scripts/build; fi
	work=$(mktemp -d)
	chmod 755 "$work"
	mkdir "$work/bin"
	cp podsh "$work/bin/"
	trap finish EXIT
	trap 'exit 130' HUP INT PIPE TERM
}

# finish: whatever has happened, nothing is left. end_others ends what the script has started besides pods.
finish() {
	for current in "${users[@]}"; do
		end_others || true
		as podsh rm -f --all >/dev/null 2>&1 || true
	done
	rm -rf "$work"
}

# become COMMAND...: in place of this shell, by the user whose turn it is ($current), in a folder of their own
# where $place says and with what $settings adds to the environment.
me=$(id -un)
current=$me
users=()
place=()
settings=()
become() {
	local user=()
	if [ "$current" != "$me" ]; then
		user=(setpriv --reuid="$current" --regid="$(id -g "$current")" --init-groups --inh-caps=-all)
	fi
	cd "$work/$current"
	exec "${place[@]}" "${user[@]}" env -i PATH="$work/bin:$PATH" HOME="$work/$current" LANG=C.UTF-8 \
		PODSH_ROOT="$work/$current/pods" "${settings[@]}" "$@"
}

as() { (become "$@"); }

# for_users COMMAND...: as root and as an ordinary user, or as the one who we are.
for_users() {
	users=("$me")
	if is_root; then
		ensure_test_user
		users+=("$test_user")
	fi
	for current in "${users[@]}"; do
		mkdir "$work/$current"
		[ "$current" = "$me" ] || chown "$current:" "$work/$current"
		"$@"
	done
}

# middle [FACTOR]: the median of the numbers that come in, times FACTOR; nothing if none come.
middle() {
	sort -g | awk -v factor="${1:-1}" '{s[NR] = $1}
		END {if (NR) printf "%.2f", factor * (s[int((NR + 1) / 2)] + s[int(NR / 2) + 1]) / 2}'
}

# measure NAME=PREPARATION=COMMAND...: their medians, in milliseconds. They take turns, since a machine is not
# equally fast all the time: what counts is the median of the rounds' medians.
rounds=5 runs=20 warmup=3
declare -A median # for those who source this
measure() {
	local one round args=(-N --warmup "$warmup" --runs "$runs" --style none --export-csv times.csv)
	for one; do
		args+=(--command-name "${one%%=*}")
		one=${one#*=}
		args+=(--prepare "${one%%=*}" "${one#*=}")
	done
	: >"$work/medians"
	for ((round = 0; round < rounds; round++)); do
		as hyperfine "${args[@]}" >"$work/log" 2>&1 || {
			cat "$work/log" >&2
			die "hyperfine could not measure: $*"
		}
		sed 1d "$work/$current/times.csv" | cut -d, -f1,4 >>"$work/medians"
	done
	for one; do
		# shellcheck disable=SC2034
		median[${one%%=*}]=$(grep "^${one%%=*}," "$work/medians" | cut -d, -f2 | middle 1000)
	done
}

# table_head HOW: what was measured where.
table_head() {
	printf '%s, Linux %s, %s (%d CPUs), podsh %s, medians of %s\n\n' \
		"$(date -u +%Y-%m-%d)" "$(uname -r)" \
		"$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sed -n 1p)" "$(nproc)" \
		"$("$work/bin/podsh" version | sed -n '1s/^podsh //p')" "$1"
	printf '| as | what | podsh | against | | ratio | aim | |\n|---|---|---|---|---|---|---|---|\n'
}

# row WHAT OURS AGAINST THEIRS [AIM]: a line of the table; AIM is the ratio that is wanted, such as "≤ 1.7".
row() {
	local ratio aim=${5:-}
	if [ -z "$2" ] || [ -z "$4" ]; then
		printf '| %s | %s | %s | %s | %s | |%s | |\n' "$current" "$1" "${2:-not measured}" "$3" \
			"${4:-not measured}" "${aim:+ $aim×}"
		return
	fi
	ratio=$(awk -v a="$2" -v b="$4" 'BEGIN {printf "%.2f", a / b}')
	printf '| %s | %s | %s | %s | %s | %s× |%s |%s |\n' "$current" "$1" "$2" "$3" "$4" "$ratio" "${aim:+ $aim×}" \
		"${aim:+ $(verdict "$ratio" "$aim")}"
}

# limit WHAT VALUE AIM [UNIT]: a line about one number.
limit() {
	printf '| %s | %s | %s%s | | | | %s%s |%s |\n' "$current" "$1" "${2:-not measured}" "${2:+${4:+ $4}}" \
		"$3" "${4:+ $4}" "${2:+ $(verdict "$2" "$3")}"
}

# verdict VALUE AIM
verdict() {
	awk -v value="$1" -v sign="${2% *}" -v aim="${2#* }" \
		'BEGIN {print (sign == "≤" ? value + 0 <= aim + 0 : value + 0 >= aim + 0) ? "met" : "not met"}'
}

# podman_conf: podman's containers.conf for machines without systemd. Its runtime is crun, as by itself, but where
# cgroups are v1 with some of v2's controllers: crun refuses those.
podman_conf() {
	runtime=crun
	[ -z "$(cat /sys/fs/cgroup/unified/cgroup.controllers 2>/dev/null)" ] || runtime=runc
	printf '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\nlock_type = "file"\nruntime = "%s"\n' "$runtime" >"$work/containers.conf"
}
