package command

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/sandbox"
	"github.com/podsh/podsh/sandbox/ask"
	"github.com/podsh/podsh/sandbox/container"
	"github.com/podsh/podsh/sandbox/disk"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/step"
	"github.com/podsh/podsh/sandbox/store"
)

func Run() *cli.Command {
	own := []cli.Flag{
		&cli.StringFlag{Name: "pod", Usage: "run it in `POD` (default: a new pod of its own)"},
		&cli.StringFlag{Name: "name", Aliases: []string{"n"}, Usage: "call the container `NAME`, and a new pod as well: then NAME means the container"},
		&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "leave it running, and print POD/NAME"},
		&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "give it a terminal; ctrl-p ctrl-q detaches"},
		&cli.BoolFlag{Name: "interactive", Aliases: []string{"i"}, Usage: "pass it this standard input"},
		&cli.BoolFlag{Name: "rm", Usage: "remove it when it has ended, and a pod of its own"},
		&cli.StringFlag{Name: "rootfs", Usage: "its root, in place of an image: `DIR[:overlay|:ro|:rw]` or a TAR"},
		&cli.StringFlag{Name: "pull", Value: "missing", Usage: "fetch the image: missing, always or never, as `WHEN` says"},
		&cli.StringFlag{Name: "platform", Usage: "the image for `OS/ARCH[/VARIANT]`"},
		&cli.StringFlag{Name: "entrypoint", Usage: "run `PROGRAM` in place of the image's entry point"},
		&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "be `UID[:GID]` or a user of the image's"},
		&cli.StringFlag{Name: "workdir", Aliases: []string{"w"}, Usage: "start in `DIR`"},
	}
	mounts := mountFlags("`SRC|NAME:DST[:ro]`", "show a folder or file of the host, or a volume that the pod's containers share and that goes with it")
	hostname := &cli.StringFlag{Name: "hostname", Usage: "the host `NAME` of a new pod, or with --uts private"}
	return &cli.Command{
		Name:      "run",
		Usage:     "run a container in a pod, from an image",
		ArgsUsage: "IMAGE [CMD [ARG...]]",
		Description: `A container has a root file system of its own, and shares the network, the host
name, IPC and process ids of its pod. IMAGE is a reference such as nginx or
HOST/NAME:TAG, oci:DIR[:TAG], oci-archive:FILE or docker-archive:FILE. All that
follows it is the command's.

Without -d and -t podsh runs the command itself: its output comes here, podsh ends
with its status, and it ends with podsh. It has pipes in place of files, sockets
and terminals (-t gives it one of those), and all users in it can open /dev/stdout.
With them the pod's supervisor does: it
writes the log (podsh logs), others can attach, and a closed terminal or a signal to
podsh run does nothing to the container. 125 is an error of podsh, 126 a
command that can't be executed, 127 one that is not there.

Examples:
  podsh run --rm busybox echo hello
  podsh run -it --rm debian                     a shell; its pod goes with it
  podsh run -d --name web -p 8080:80 nginx      in a new pod called web
  podsh run -d --pod web --name app --restart always python app.py
  podsh run -d --listen 8080 app                app accepts on the host's port 8080 itself
  podsh run --pod web --explain --rm busybox ps and say what is done, and why
  podsh run --dry-run busybox ps                only say it, of its pod as well
  podsh run --rm --rootfs ./debian ls /         a folder in place of an image`,
		Flags: slices.Concat(own, envFlags(), mounts, capabilityFlags("have"), unmaskFlag(), lifeFlags(), []cli.Flag{labelFlag()},
			privateFlags(), []cli.Flag{hostname, listenFlag()}, planFlags("`text` or json"), netFlags("of a new pod: ")),
		Action: run,
	}
}

func run(c *cli.Context) error {
	spec, err := containerSpec(c)
	if err != nil {
		return err
	}
	if err := spec.Validate(); err != nil {
		return err
	}
	if dryRunOf(c) == "sh" {
		return usagef("--dry-run=text shows each step by hand, --dry-run=json each call", "a container has no script: it needs its pod, and an image unpacked")
	}
	store, err := openStore(dryRunOf(c) != "")
	if err != nil {
		return err
	}
	pod, err := podNamed(c, store)
	if err != nil {
		return err
	}
	if err := container.CheckRoot(spec, pod); err != nil {
		return err
	}
	made := &making{spec: spec}
	if err := made.findImage(c); err != nil {
		return err
	}
	if dryRunOf(c) != "" {
		return made.show(c, store, pod)
	}
	own := pod == nil
	if own {
		if pod, err = newPod(c, store, spec); err != nil {
			return err
		}
	}
	signals := make(chan os.Signal, 16)
	begun := func() {}
	if own {
		signal.Notify(signals, forwarded...)
		begun = removeIfStopped(pod, signals)
	}
	container, err := made.container(c, pod, own)
	begun()
	if err != nil {
		if own {
			err = errors.Join(err, sandbox.Remove(pod, true))
		}
		return err
	}
	return start(container, signals)
}

// removeIfStopped removes a new pod if podsh is stopped before there is a container in it; until the returned function is
// called.
func removeIfStopped(pod *pod.Pod, signals <-chan os.Signal) (begun func()) {
	done := make(chan struct{})
	go func() {
		select {
		case sig := <-signals:
			_ = sandbox.Remove(pod, true) // podsh ps shows it, if that did not work
			os.Exit(128 + int(sig.(syscall.Signal)))
		case <-done:
		}
	}()
	return func() { done <- struct{}{} } // a removal that has begun ends podsh
}

// making is a container on its way.
type making struct {
	spec   *spec.ContainerSpec
	images *image.Store
	image  *image.Image
}

// findImage finds the image, or fetches it.
func (m *making) findImage(c *cli.Context) (err error) {
	switch {
	case isTar(m.spec.Rootfs.Dir):
		m.images, m.image, err = importTar(m.spec.Rootfs.Dir)
		return err
	case m.spec.Image == "":
		return nil
	}
	m.images, m.image, err = imageFor(m.spec.Image, c.String("pull"), c.String("platform"))
	return err
}

// layers makes sure that the image's layers are unpacked for the pod.
func (m *making) layers(pod *pod.Pod) ([]string, error) {
	if m.image == nil {
		return nil, nil
	}
	p := newProgress(false)
	return disk.LayersFor(pod, m.images, m.image, func(event image.Event) { p.tell(isUnpacking, event) })
}

// container describes the container in its pod.
func (m *making) container(c *cli.Context, pod *pod.Pod, own bool) (*pod.Container, error) {
	if m.images != nil {
		done, err := m.images.Bringing()
		if err != nil {
			return nil, err
		}
		defer done()
	}
	layers, err := m.layers(pod)
	if err != nil {
		return nil, err
	}
	made, err := container.NewContainer(pod, m.spec, m.image, layers, own)
	if err == nil && c.Bool("explain") {
		var plan step.Plan
		if plan, err = container.ProposeContainer(made); err == nil {
			err = plan.Explain(os.Stderr)
		}
	}
	return made, err
}

// show prints what would be done: for the container, and before that for a pod of its own.
func (m *making) show(c *cli.Context, store *store.Store, pod *pod.Pod) error {
	if pod != nil {
		return m.showIn(c, pod)
	}
	podSpec, err := podSpec(c, m.spec)
	if err != nil {
		return err
	}
	proposal, err := sandbox.Propose(podSpec, store, sandbox.Options{Detailed: true, DryRun: true})
	if err != nil {
		return err
	}
	defer proposal.Close()
	layers, err := m.layers(proposal.Pod)
	if err != nil {
		return err
	}
	steps, err := proposal.ProposeContainer(m.spec, m.image, layers)
	if err != nil {
		return err
	}
	if dryRunOf(c) == "json" {
		return writeJSON(os.Stdout, map[string][]step.Line{"pod": proposal.Plan.Lines(), "container": steps.Lines()})
	}
	if err := proposal.Plan.Explain(os.Stdout); err != nil {
		return err
	}
	fmt.Println("\nand then, in that pod:")
	return steps.Explain(os.Stdout)
}

// showIn prints what would be done in a pod that is there.
func (m *making) showIn(c *cli.Context, pod *pod.Pod) error {
	layers, err := m.layers(pod)
	if err != nil {
		return err
	}
	made, err := container.PlanContainer(pod, m.spec, m.image, layers)
	if err != nil {
		return err
	}
	plan, err := container.ProposeContainer(made)
	if err != nil {
		return err
	}
	if dryRunOf(c) == "json" {
		return writeJSON(os.Stdout, plan.Lines())
	}
	return plan.Explain(os.Stdout)
}

// podNamed finds the pod that the container is to run in; nil if it is to have one of its own.
func podNamed(c *cli.Context, store *store.Store) (*pod.Pod, error) {
	ref := c.String("pod")
	if ref == "" {
		return nil, nil
	}
	for _, flag := range netFlags("") {
		if name := flag.Names()[0]; c.IsSet(name) {
			return nil, usagef("podsh create --"+name+", or leave out --pod", "--%s is of a new pod", name)
		}
	}
	pod, err := store.Find(ref)
	if err == nil && pod.IsHub {
		err = refuseHub(c, pod)
	}
	return pod, err
}

// newPod makes a pod for one container.
func newPod(c *cli.Context, store *store.Store, spec *spec.ContainerSpec) (*pod.Pod, error) {
	podSpec, err := podSpec(c, spec)
	if err != nil {
		return nil, err
	}
	proposal, err := sandbox.Propose(podSpec, store, sandbox.Options{Detailed: c.Bool("explain")})
	if err != nil {
		return nil, err
	}
	defer proposal.Close()
	if c.Bool("explain") {
		if err := proposal.Plan.Explain(os.Stderr); err != nil {
			return nil, err
		}
	}
	pod, warnings, err := proposal.Create()
	for _, w := range warnings {
		warn(w)
	}
	if err == nil {
		err = sayPorts(os.Stderr, pod)
	}
	return pod, err
}

// start starts a container, and stays with it unless it is detached.
func start(c *pod.Container, signals chan os.Signal) error {
	if c.Spec.Detached || c.Spec.TTY {
		signal.Stop(signals)
		return runSupervised(c)
	}
	signal.Notify(signals, forwarded...)
	in := os.Stdin
	if !c.Spec.Stdin {
		in = nil
	}
	return exitWith(sandbox.Run(c, &container.Stdio{In: in, Out: os.Stdout, Err: os.Stderr}, signals))
}

func runSupervised(container *pod.Container) error {
	begin := func(a *ask.Attachment) (*ask.Session, error) {
		session, err := sandbox.Start(container, a)
		if err != nil {
			err = errors.Join(err, sandbox.RemoveContainer(container, true)) // it never ran
		}
		return session, err
	}
	if !container.Spec.Detached {
		return attachTerminal(container, begin)
	}
	session, err := begin(nil)
	if err != nil {
		return err
	}
	session.Close()
	_, err = fmt.Println(container.Title())
	return err
}
