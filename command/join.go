package command

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/container"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
)

func Join() *cli.Command {
	own := []cli.Flag{
		&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "give the command a terminal (by itself when this is one)"},
		&cli.BoolFlag{Name: "interactive", Aliases: []string{"i"}, Usage: "as always; for those who type -it"},
		&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "be `UID[:GID]` or a user of the pod's"},
		&cli.StringFlag{Name: "workdir", Aliases: []string{"w"}, Usage: "start in `DIR` (default: that of the container, or the user's home)"},
	}
	only := []cli.Flag{
		&cli.StringFlag{Name: "only", Usage: "join only these `NAMESPACES`, such as net,uts (and always user)"},
		listenFlag(),
	}
	return &cli.Command{
		Name:      "join",
		Aliases:   []string{"exec", "enter"},
		Usage:     "run a command in a pod, or a shell",
		ArgsUsage: "POD|CONTAINER [[--] CMD [ARG...]]",
		Description: "The command gets this terminal or pipes, the pod's environment and nothing else of the caller. podsh ends with its\n" +
			"status; 125 is an error of podsh, 126 a command that can't be executed, 127 one that is not there.\n\n" +
			"Examples:\n" +
			"  podsh join web                                a shell\n" +
			"  podsh join web -- nginx -g 'daemon off;'\n" +
			"  podsh join web --user www-data -- id\n" +
			"  podsh join web --only net -- ss -ltn          the host's ss on the pod's network\n" +
			"  podsh join web --listen 8080 -- app           app accepts on the host's port 8080 itself",
		Flags:  slices.Concat(own, envFlags(), capabilityFlags("have"), only, planFlags("`text` or json")),
		Action: join,
	}
}

func join(c *cli.Context) error {
	args := c.Args().Slice()
	if len(args) == 0 {
		return usagef("podsh join POD -- CMD; `podsh ps` shows the pods", "join needs a pod")
	}
	ref, command := args[0], args[1:]
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	pod, err := joinTarget(ref)
	if err != nil {
		return err
	}
	show := dryRunOf(c)
	if show == "sh" {
		return usagef("--dry-run=text shows each step by hand, --dry-run=json each call", "a join has no script: what it does ends with the command")
	}
	spec, err := joinSpec(c, command)
	if err != nil {
		return err
	}
	joining, err := container.ProposeJoin(pod, spec)
	if err != nil {
		return err
	}
	if place, errno, ok := failedCall(os.Args[0]); ok {
		return joining.Failed(place, errno)
	}
	switch show {
	case "text":
		return joining.Plan.Explain(os.Stdout)
	case "json":
		return writeJSON(os.Stdout, joining.Plan.Lines())
	}
	if c.Bool("explain") {
		if err := joining.Plan.Explain(os.Stderr); err != nil {
			return err
		}
	}
	if w := joining.Warning(); w != nil {
		warn(w)
	}
	if spec.TTY {
		return joinTerminal(joining, os.Args[1:])
	}
	streams, err := joining.Streams()
	switch {
	case err != nil:
		return err
	case streams != nil:
		return joinCopied(joining, streams, os.Args[1:])
	}
	return joining.Exec(os.Args[1:])
}

// joinTarget finds a pod, or a container, which to a command that joins is one.
func joinTarget(ref string) (*pod.Pod, error) {
	store, err := store.OpenStore()
	if err != nil {
		return nil, err
	}
	pod, c, err := store.FindTarget(ref)
	if err == nil && c != nil {
		return container.AsPod(c)
	}
	return pod, err
}

// joinCopied runs a command whose output is copied.
func joinCopied(joining *container.Joining, streams *container.Streams, args []string) error {
	runtime.LockOSThread() // the joiner dies with this thread
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	joiner, err := joining.StartBeside(args, streams)
	if err != nil {
		streams.Close()
		return err
	}
	streams.Copy()
	streams.Notify(signals)
	go func() {
		for s := range signals {
			_ = joiner.Signal(s) // it has ended: so do we
			if s == unix.SIGTSTP {
				_ = unix.Kill(os.Getpid(), unix.SIGSTOP) // that can't fail
			}
		}
	}()
	err = ended(joiner)
	if lost := streams.Drain(); lost != nil {
		return lost
	}
	return err
}

func joinSpec(c *cli.Context, command []string) (*spec.JoinSpec, error) {
	env, err := envSpec(c)
	if err != nil {
		return nil, err
	}
	spec := &spec.JoinSpec{
		Command: command, User: c.String("user"), Workdir: c.String("workdir"), Env: env,
		CapAdd: c.StringSlice("cap-add"), CapDrop: c.StringSlice("cap-drop"),
		TTY:  c.Bool("tty") || isTerminal(os.Stdin) && isTerminal(os.Stdout) && isTerminal(os.Stderr),
		Term: os.Getenv("TERM"), HostEnv: os.Environ(),
	}
	if spec.Listen, err = listenSpec(c); err != nil {
		return nil, err
	}
	if size, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ); err == nil {
		spec.Rows, spec.Cols = size.Row, size.Col
	}
	if only := c.String("only"); only != "" {
		spec.Only = strings.Split(only, ",")
	}
	return spec, nil
}

// failedCall reads the name that the joiner gives to podsh when a call of its plan has failed: podsh then
// makes the same plan again, and says what the call was for.
func failedCall(name string) (place int, errno syscall.Errno, ok bool) {
	n, err := fmt.Sscanf(name, "podsh@failed:%d:%d", &place, &errno)
	return place, errno, err == nil && n == 2
}
