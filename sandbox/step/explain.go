package step

import (
	"fmt"
	"io"
	"strings"
)

// Explain writes a plan for people: each step in plain words, where to read more, and the same by hand: $ is
// a shell on the host, # the shell that step 1 started.
func (plan Plan) Explain(w io.Writer) error {
	n := 0
	var text strings.Builder
	for _, step := range plan {
		if step.Why == "" {
			continue
		}
		n++
		fmt.Fprintf(&text, "%2d  %-82s  %s\n", n, step.Why, step.Man)
		prompt := "$"
		if step.Side == Inside {
			prompt = "#"
		}
		if step.Cmd == "" {
			continue
		}
		for line := range strings.SplitSeq(step.Cmd, "\n") {
			fmt.Fprintf(&text, "    %s %s\n", prompt, line)
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// Line is a call of a plan in words, for JSON.
type Line struct {
	Side string `json:"side"`
	Call string `json:"call"`
	Why  string `json:"why,omitempty"`
	Cmd  string `json:"cmd,omitempty"`
	Man  string `json:"man,omitempty"`
}

// Lines are all calls of a plan.
func (plan Plan) Lines() []Line {
	lines := []Line{}
	for _, step := range plan {
		call := step.Host
		if step.Side == Inside {
			call = ShowCall(step.Call)
		}
		lines = append(lines, Line{string(step.Side), call, step.Why, step.Cmd, step.Man})
	}
	return lines
}

// scriptHead starts the script that builds a pod by hand. The holder is a shell that waits in the new
// namespaces until the host's side is done, then becomes what the steps of its own side say.
const scriptHead = `#!/bin/sh
# %s
#
# Builds the same pod by hand, with util-linux, coreutils, iproute2 and, for ranges of ids, uidmap. It prints
# the pid of the process that holds the pod; kill -KILL that to end it. It trusts the root file system that it is
# given: unlike podsh it follows a link in there to wherever that leads.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
root=%s
(umask 077; mkdir -p "$root")
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
chmod 711 "$tmp"
mkfifo -m 666 "$tmp/said" "$tmp/go"
exec 7<>"$tmp/said" 8<>"$tmp/go" # to read and write: no end waits for the other to be opened
exec 6<"$tmp/said" 9>"$tmp/said" 7<&-

cat >"$tmp/pod" <<'END_OF_POD'
set -eu
root=$1
`

// Script writes a plan as a script in plain sh; stage is the folder where the root is built.
func Script(w io.Writer, stage string, plan Plan) error {
	var host, inside strings.Builder
	unshare, becomes, drops := "", "", ""
	n := 0
	for _, step := range plan {
		if step.Why == "" {
			continue
		}
		n++
		comment := fmt.Sprintf("\n# %d %s: %s\n", n, step.Why, step.Man)
		switch {
		case step.Role == Start:
			host.WriteString(comment)
			unshare = strings.TrimSuffix(step.Cmd, " sh")
			fmt.Fprintf(&host, startHolderByHand, unshare, "%s")
		case step.Role == Become:
			inside.WriteString(comment + "# " + step.Cmd + ", which was done to start this\n")
			becomes = strings.TrimSuffix(step.Cmd, " sh") + " "
		case step.Role == Last && drops == "":
			inside.WriteString(comment)
			drops = strings.TrimSuffix(step.Cmd, " sh")
		case step.Role == Last:
			inside.WriteString(comment)
			fmt.Fprintf(&inside, "umask 022\necho ready >&9\nexec 9>&-\n%s sh -c 'command -v podsh >/dev/null && exec podsh pause; exec sleep infinity'\n", drops)
		case step.Side == Host:
			host.WriteString(comment + orNothing(step.Cmd))
		default:
			inside.WriteString(comment + orNothing(step.Cmd))
		}
	}
	if becomes == "" {
		becomes = "exec "
	}
	text := fmt.Sprintf(scriptHead, "podsh create, by hand", Quote(stage)) + inside.String() + "END_OF_POD\n" +
		fmt.Sprintf(host.String(), becomes) + scriptEnd
	_, err := io.WriteString(w, text)
	return err
}

// startHolderByHand: in a new pid namespace the old /proc still shows the host's numbers, and a shell opens
// its redirections itself; so it can read its own pid as the host sees it. Descriptor 9 is the holder's alone: if that
// does not come about, or ends, the script reads the end of the file and ends as well.
const startHolderByHand = `%s sh -c 'exec 5<"$2/go"; read -r pid rest </proc/self/stat; echo "$pid" >&9; read -r go <&5 || exit 1; exec 5<&-
%ssh "$2/pod" "$1" "$2"' sh "$root" "$tmp" </dev/null >/dev/null 6<&- 8<&- &
exec 9>&-
read -r HOLDER <&6
`

const scriptEnd = `
echo go >&8
read -r ready <&6
echo "$HOLDER"
`

// orNothing is a command as the script has it: one a line, so that set -e ends it at the first that fails.
func orNothing(cmd string) string {
	if cmd == "" {
		return ": nothing to do by hand\n"
	}
	parts := strings.Split(cmd, "'") // every other one is quoted, and left alone
	for i := 0; i < len(parts); i += 2 {
		parts[i] = strings.ReplaceAll(parts[i], " && ", "\n")
	}
	return strings.Join(parts, "'") + "\n"
}
