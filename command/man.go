package command

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/sandbox/spec"
)

func Man() *cli.Command {
	return &cli.Command{
		Name:  "man",
		Usage: "print the man page",
		Description: `Prints the man page podsh(1), in troff.

Examples:
  podsh man | man -l -
  podsh man >/usr/local/share/man/man1/podsh.1`,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("`podsh man | man -l -`", "man takes no arguments, not %q", c.Args().First())
			}
			_, err := io.WriteString(os.Stdout, manPage(c.App))
			return err
		},
	}
}

// manSection is a section of the man page that does not come from the command table. Its text is written as
// the descriptions of commands are, and TERM and text stand in two columns of a list.
type manSection struct {
	title string
	text  string
	list  [][2]string
}

var manIntroduction = manSection{title: "DESCRIPTION", text: `podsh makes pods as Kubernetes has them: groups of processes that share
namespaces, held by a pause process. There is no daemon: a pod lives as long as
its pause does, and everything podsh knows about it is a folder of small files.
An ordinary user gets pods through a user namespace, in which he is root; for
root that namespace is left out unless asked for.

A POD is an id, the start of one that no other pod has, or a name. Flags are
taken before and after arguments, up to --.

  $ podsh create --name web
  5f0c3ad91be2
  $ podsh join web -- hostname
  web
  $ podsh rm -f web`}

var manSections = []manSection{
	{title: "FILES", list: [][2]string{
		{"$XDG_RUNTIME_DIR/podsh", "where pods are described: a folder of mode 0700. Without that variable /run/user/UID/podsh, if that folder is the user's; else podsh-UID in the folder for temporary files. For root /run/podsh."},
		{"/etc/subuid, /etc/subgid", "the ranges of ids that a user may map into a user namespace, subuid(5)."},
		{"$XDG_DATA_HOME/podsh/upper", "what containers have written, their logs, and the volumes of their pods, until podsh rm; before Linux 6.6 also what pods with an overlay have written. Without that variable below $HOME/.local/share."},
		{"$XDG_DATA_HOME/podsh/images", "images: an OCI image layout, and beside it their layers unpacked."},
		{"$REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json, ~/.docker/config.json", "credentials of registries, as podman login, skopeo login and docker login write them."},
	}},
	{title: "CONTAINERS", text: `A container (podsh run) is a command in a pod with a root file system of its own.
It shares the namespaces of the pod but for that of mounts, and those that it is
given for itself. Without -d and -t podsh is its parent, and it ends with podsh;
what podsh reads and writes it has as pipes, which all its users can open.
With them the pod's supervisor is: a process of podsh's, there while it has
containers. It writes their output to their logs, in the CRI format of
Kubernetes, rotated at 10 MB, and starts them once more as --restart says: at
once, then after 10 seconds, twice that each time up to 5 minutes, and from the
beginning after a run of 10 minutes. When it is killed its containers end with
it; the next podsh ps -c tells of that, and those that are to start once more do.

When a container's command ends, so does every other process in its mount
namespace. One that makes a mount namespace of its own is lost from sight, but
ends with the pod.

Layers are unpacked once for all pods with the same ids; with one id only, all
files belong to root.`},
	{title: "NETWORK", text: `A pod has a network namespace of its own with nothing but localhost in it,
unless --net says else. What is more is carried by a helper: a process of
podsh's without capabilities, which ends with the pod. Published ports (-p,
podsh port) keep the client's address. --net outbound leads out through a
network stack in the helper, to what the user reaches, but not to this host's
own addresses, its localhost or link-local ones; --host-access opens the
host, its localhost too, as host.containers.internal and by its addresses.

Names are looked up by the host's name servers, in its domains and with its
options, as its resolv.conf has them at the time: the pod's follows, until
somebody in the pod changes it. Names of the host's /etc/hosts are found, too,
but for its loopback addresses; not with --dns or --hosts-file none.

Pods on a network (podsh network create, --net NAME) find each other by name.
Without root networks are in a hub, a pod of podsh's own that comes with the
first pod on one and goes with the last (podsh ps -a shows it); as root they
are on the host, and nftables or iptables masquerade.`},
	{title: "ENVIRONMENT", list: [][2]string{
		{"CNI_PATH", "folders with CNI plugins, for networks made with --conflist. They are also looked for in cni beside podsh, /opt/cni/bin, /usr/lib/cni and /usr/libexec/cni."},
		{"PODSH_ROOT", "where pods are described, in place of the folders above."},
		{"XDG_RUNTIME_DIR, XDG_DATA_HOME, HOME, TMPDIR", "see FILES."},
		{"NO_COLOR, TERM", "doctor: no colours where NO_COLOR is set or TERM is dumb."},
	}},
	{title: "EXIT STATUS", list: [][2]string{
		{"0", "success."},
		{"1", "an error of podsh's, told on standard error with a hint."},
		{"2", "podsh was called wrongly."},
		{"125, 126, 127", "join, run: an error of podsh's; a command that can't be executed; one that is not found. Else they have the status of its command, and 128+N when signal N ended that."},
	}},
	{title: "SECURITY", text: `A pod is a wall against accidents and against programs that are curious; it
shares the kernel with the host, and a hole in the kernel is a hole in the wall.
Without root, what gets out of a pod is no more than its user. A pod of root
that has no user namespace of its own (--userns new gives it one) is root on the
host but for its capabilities.

Commands in a pod have few capabilities and no_new_privs, see nothing of the
host's processes, and can neither reach podsh's own file nor the environment,
descriptors, keyring or terminal of whoever joins. What a flag opens is open:
--volume, --net host, --cap-add and --unmask do what they say.

A pod has no limits on memory or processes: its processes can use up what their
user may use.`},
}

// manPage writes podsh(1) in troff, groff_man(7).
func manPage(app *cli.App) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH PODSH 1 \"\" %s \"User Commands\"\n", troffQuote("podsh "+app.Version))
	fmt.Fprintf(&b, ".SH NAME\npodsh \\- %s\n.SH SYNOPSIS\n", troff(app.Usage))
	fmt.Fprintf(&b, ".B podsh\n.I COMMAND\n[flags] [arguments]\n")
	manIntroduction.write(&b)
	b.WriteString(".SH COMMANDS\n")
	for _, command := range allCommands(app) {
		if !command.Hidden {
			writeCommand(&b, command)
		}
	}
	for _, section := range manSections {
		section.write(&b)
	}
	b.WriteString(".SH SEE ALSO\n")
	pages := []string{"namespaces(7)"}
	for _, ns := range spec.Namespaces {
		pages = append(pages, ns.Man)
	}
	pages = append(pages, "capabilities(7)", "pivot_root(2)", "unshare(1)", "nsenter(1)", "lsns(8)")
	for i, page := range pages {
		name, number, _ := strings.Cut(page, "(")
		comma := ","
		if i == len(pages)-1 {
			comma = ""
		}
		fmt.Fprintf(&b, ".BR %s (%s%s\n", troff(name), number, comma)
	}
	return b.String()
}

func (s manSection) write(b *strings.Builder) {
	fmt.Fprintf(b, ".SH %s\n", troffQuote(s.title))
	writeText(b, s.text)
	for _, entry := range s.list {
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", troff(entry[0]), troff(entry[1]))
	}
}

func writeCommand(b *strings.Builder, command fullCommand) {
	title := "podsh " + strings.Join(command.names, " | ")
	flags := shownFlags(command.Command)
	if len(flags) > 0 {
		title += " [flags]"
	}
	fmt.Fprintf(b, ".SS %s\n", troffQuote(strings.TrimSpace(title+" "+command.ArgsUsage)))
	writeText(b, strings.ToUpper(command.Usage[:1])+command.Usage[1:]+".\n\n"+command.Description)
	for _, flag := range flags {
		doc, ok := flag.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		value, usage := flagUsage(doc)
		fmt.Fprintf(b, ".TP\n\\fB%s\\fR", troff(strings.Join(newFlagWord(flag).dashed(), ", ")))
		switch {
		case value == "":
		case mayStandAlone(flag):
			fmt.Fprintf(b, "[=\\fI%s\\fR]", troff(value))
		default:
			fmt.Fprintf(b, " \\fI%s\\fR", troff(value))
		}
		fmt.Fprintf(b, "\n%s\n", troff(usage))
	}
}

// writeText writes paragraphs; lines that are indented, examples, stay as they are.
func writeText(b *strings.Builder, text string) {
	example := false
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		for line := range strings.SplitSeq(strings.Trim(paragraph, "\n"), "\n") {
			indented := strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "\t")
			if indented != example {
				b.WriteString(map[bool]string{true: ".RS\n.nf\n", false: ".fi\n.RE\n"}[indented])
				example = indented
			}
			if line = strings.TrimSpace(line); line != "" {
				b.WriteString(troff(line) + "\n")
			}
		}
		if example {
			b.WriteString(".fi\n.RE\n")
			example = false
		}
	}
}

// troff escapes text: backslashes, dashes that are to be copied as they are, and what looks like a request at
// the start of a line.
func troff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", "\\`", "^", `\(ha`, "~", `\(ti`).Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

func troffQuote(text string) string {
	return `"` + strings.ReplaceAll(troff(text), `"`, `\(dq`) + `"`
}
