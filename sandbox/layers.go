package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/image/program"
	"github.com/podsh/podsh/nsenter"
)

// OpenImages opens the user's store of images.
func OpenImages() (*image.Store, error) {
	path := filepath.Join(dataFolder(uint32(os.Geteuid())), "podsh", "images")
	if err := checkWay(path); err != nil {
		return nil, fmt.Errorf("images in %s: %w", path, err)
	}
	return image.Open(path)
}

// mapName names the ids that the files of layers belong to: pods with the same ids share them.
func (p *Pod) mapName() string {
	if p.Namespaces["user"].Kind == "host" || len(p.UIDMap) == 0 {
		return "host"
	}
	name := strings.ReplaceAll(strings.Join([]string{words(p.UIDMap), words(p.GIDMap)}, "_"), " ", "-")
	if len(name) > 100 {
		hash := fnv.New64a()
		hash.Write([]byte(name))
		name = fmt.Sprintf("ids-%016x", hash.Sum64())
	}
	return name
}

// Layers makes sure that the layers of an image are unpacked for the pod, and returns where, the lowest first. One that an
// image has twice, as buildkit's empty ones, is there once: an overlay refuses to have a folder twice, and what the topmost
// has, has the last word. tell hears how far that has got; it is called by several at a time.
func (p *Pod) Layers(store *image.Store, img *image.Image, tell func(image.Event)) ([]string, error) {
	if p.Namespaces["user"].Kind == "path" {
		return nil, fail(nil, []string{"podsh create without --userns path:FILE"}, "pod %q has ids that podsh does not know, so nothing can be unpacked for it", p.Title())
	}
	paths, missing := []string{}, []image.Layer{}
	for _, layer := range slices.Backward(img.Layers) {
		path := store.LayerPath(p.mapName(), layer)
		if slices.Contains(paths, path) {
			continue
		}
		paths = append(paths, path)
		if !store.HasLayer(p.mapName(), layer) {
			missing = append(missing, layer)
		}
	}
	slices.Reverse(paths)
	room := make(chan struct{}, runtime.NumCPU())
	errs := make([]error, len(missing))
	var group sync.WaitGroup
	for i, layer := range missing {
		group.Go(func() {
			room <- struct{}{}
			errs[i] = p.UnpackLayer(store, layer, tell)
			<-room
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p.corrected(store, paths)
}

// Where unpacking a layer stops: what is more is no layer, but an attack.
const (
	mostLayerBytes   = 64 << 30
	mostLayerEntries = 4 << 20
	leastFree        = 64 << 20 // bytes that are left on the disk
)

// UnpackLayer unpacks a layer for pods with these ids, unless it is there.
func (p *Pod) UnpackLayer(store *image.Store, layer image.Layer, tell func(image.Event)) error {
	fresh, err := store.NewLayer(p.mapName(), layer, p.removeTree)
	if fresh == nil || err != nil {
		return err
	}
	blob, err := os.Open(store.BlobPath(layer.Digest))
	if err == nil {
		defer blob.Close()
		err = p.giveToRoot(fresh.Dir)
	}
	if err == nil {
		var implied []string
		err = p.unpack(blob, fresh.Dir, &layer, func(event image.Event) {
			if event.Implied != nil {
				implied = event.Implied
			} else {
				tell(event)
			}
		})
		if err == nil {
			err = fresh.SaveImplied(implied)
		}
	}
	if err != nil {
		return errors.Join(err, fresh.Discard())
	}
	return fresh.Commit()
}

// removeTree removes a folder whose files belong to ids of the pod's.
func (p *Pod) removeTree(dir string) error {
	lost := Pod{Upper: dir, UIDMap: p.UIDMap, GIDMap: p.GIDMap, OneID: p.OneID}
	return lost.removeUpper()
}

// unpack runs the program of images with the folder as its root: whatever is in the blob, there is nothing else that it
// could reach. It is root of a user namespace like the pod's, so that the files belong to whom they should.
func (p *Pod) unpack(blob *os.File, dir string, layer *image.Layer, tell func(image.Event)) error {
	limits := image.Limits{Bytes: mostLayerBytes, Entries: mostLayerEntries}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil {
		limits.Bytes = min(limits.Bytes, max(1, int64(fs.Bavail)*fs.Bsize-leastFree))
	}
	file, done, err := imageProgram.open()
	if err != nil {
		return err
	}
	defer done()
	ours, theirs, err := Stream()
	if err != nil {
		return err
	}
	defer ours.Close()
	executor, err := p.unpacker(blob, theirs, file)
	theirs.Close()
	if err != nil {
		return err
	}
	defer executor.Kill()
	plan, then := p.planUnpack(dir)
	if err := leadAway(executor, plan, then); err != nil {
		return plan.explainFailure(err)
	}
	_, err = converse(ours, &image.Request{Do: image.Unpack, Layer: layer, Limits: limits, Squash: p.OneID}, tell)
	return err
}

// sharedProgram is the program of images, open while somebody unpacks: to open it takes longer than most layers do.
type sharedProgram struct {
	mutex sync.Mutex
	file  *os.File
	users int
}

var imageProgram sharedProgram

func (s *sharedProgram) open() (file *os.File, done func(), err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.users == 0 {
		if s.file, err = inMemory(program.Open()); err != nil {
			return nil, nil, err
		}
	}
	s.users++
	return s.file, s.close, nil
}

func (s *sharedProgram) close() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.users--; s.users == 0 {
		s.file.Close()
	}
}

// Descriptors that the executor of an unpacker finds open.
const (
	unpackBlobFD    = nsenter.EnterFD
	unpackTalkFD    = nsenter.EnterFD + 1
	unpackProgramFD = nsenter.EnterFD + 2
)

// unpacker starts an executor in a user namespace like the pod's.
func (p *Pod) unpacker(blob, talk, file *os.File) (*nsenter.Executor, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	attr := &syscall.SysProcAttr{Setsid: true}
	if p.mapName() == "host" {
		return nsenter.Start("/proc/self/exe", null, []*os.File{blob, talk, file}, attr)
	}
	attr.Cloneflags = unix.CLONE_NEWUSER
	for c := capability.Cap(0); c <= lastCap(); c++ {
		attr.AmbientCaps = append(attr.AmbientCaps, uintptr(c)) // they last through the execs, capabilities(7)
	}
	executor, err := nsenter.Start("/proc/self/exe", null, []*os.File{blob, talk, file}, attr)
	if errno, ok := unwrapped(err).(syscall.Errno); ok {
		return nil, withHints(fmt.Errorf("make a user namespace to unpack in: %w", errno), hintsFor("clone", errno))
	}
	if err != nil {
		return nil, userNamespaceRefused(err)
	}
	if err := p.writeMaps(executor.PID, !(os.Geteuid() == 0 && hasCapability(capability.CAP_SYS_ADMIN))); err != nil {
		executor.Kill()
		return nil, err
	}
	return executor, nil
}

// userNamespaceRefused says why no user namespace could be made to unpack in, as far as this machine can be asked.
func userNamespaceRefused(err error) error {
	var errno syscall.Errno
	errors.As(err, &errno)
	return withHints(fmt.Errorf("unpack in a user namespace: %w", err), hintsFor("clone", errno))
}

// planUnpack lists what is done to leave the program of images alone with a folder.
func (p *Pod) planUnpack(dir string) (plan Plan, then int) {
	b := &builder{}
	b.explain("have no network and no other processes, and mounts of its own", "namespaces(7)", "")
	b.call(unix.SYS_CLOSE_RANGE, unpackProgramFD+1, allFDs, 0)
	b.call(unix.SYS_DUP3, unpackBlobFD, 0, 0)
	b.call(nsenter.Clone, unix.CLONE_NEWNS|unix.CLONE_NEWNET|unix.CLONE_NEWIPC|unix.CLONE_NEWPID)
	b.call(unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_PRIVATE, 0)
	b.call(unix.SYS_MOUNT, dir, dir, 0, unix.MS_BIND, 0)
	b.call(unix.SYS_CHDIR, dir) // as ourselves: the way to it may be closed to the pod's root
	b.explain("be root, where the layer's files belong to whom they should", "user_namespaces(7)", "")
	b.beRoot(p)
	b.explain("become the program that unpacks, which does the rest before it starts", "execveat(2)", "")
	b.closeOnExec(unpackProgramFD, nsenter.PlanFD, unpackTalkFD)
	b.call(unix.SYS_EXECVEAT, unpackProgramFD, "", nsenter.Strings([]string{image.UnpackName}), nsenter.Strings(nil), unix.AT_EMPTY_PATH)
	then = b.calls
	keep := toUnpack
	if p.mapName() == "host" {
		keep = append(slices.Clip(keep), capability.CAP_SYS_ADMIN) // overlayfs knows opaque folders of root's by trusted.*, xattr(7)
	}
	b.beAlone(p, lastCap(), keep)
	b.call(unix.SYS_DUP3, unpackTalkFD, image.RequestFD, 0) // in place of the executor's own: from here on it can't say what fails
	b.call(unix.SYS_CLOSE, unpackTalkFD)
	return b.steps, then
}

// beRoot makes the executor the pod's root, as a program of ours is to be that works on its files: it ends with podsh, and
// gains nothing by what it executes.
func (b *builder) beRoot(p *Pod) {
	if _, root := mapID(p.UIDMap, 0, true); root {
		if !p.KeepGroups {
			b.callTolerating(setgroupsDenied(p), unix.SYS_SETGROUPS, 0, 0)
		}
		b.call(unix.SYS_SETRESGID, 0, 0, 0)
		b.call(unix.SYS_SETRESUID, 0, 0, 0)
	}
	b.call(unix.SYS_UMASK, 0)
	b.call(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL), 0, 0, 0)
	b.call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	b.call(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, make([]byte, sigsetSize), 0, sigsetSize)
}

// converse sends the program of images a request, and hears what it tells, to the end.
func converse(conn *os.File, request *image.Request, tell func(image.Event)) ([]*image.Image, error) {
	text, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(text, '\n')); err != nil {
		return nil, fmt.Errorf("send a request to the program of images: %w", err)
	}
	in := bufio.NewScanner(conn)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var event image.Event
		if err := json.Unmarshal(in.Bytes(), &event); err != nil {
			return nil, fmt.Errorf("what the program of images said: %w", err)
		}
		switch {
		case event.Error != "":
			var hints []string
			if event.Hint != "" {
				hints = []string{event.Hint}
			}
			return nil, fail(nil, hints, "%s", event.Error)
		case event.Finished:
			return event.Images, nil
		default:
			tell(event)
		}
	}
	return nil, fail(nil, []string{"was it killed, or is memory short?"}, "the program of images ended without a word")
}

// Stream makes the two ends of a stream.
func Stream() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "stream"), os.NewFile(uintptr(fds[1]), "stream"), nil
}

// AskImages runs the program of images on the host, with our own environment: it speaks with registries, and reads and
// writes images of other forms.
func AskImages(request *image.Request, in, out *os.File, tell func(image.Event)) ([]*image.Image, error) {
	file, err := inMemory(program.Open())
	if err != nil {
		return nil, err
	}
	defer file.Close()
	path, err := nsenter.Path(file)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := Stream()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	runtime.LockOSThread() // it ends with the thread that started it
	defer runtime.UnlockOSThread()
	process, err := os.StartProcess(path, []string{program.Name}, &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{in, out, os.Stderr, theirs}, Sys: &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}})
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("start the program of images: %w", err)
	}
	images, err := converse(ours, request, tell)
	if err != nil {
		ours.Close()
	}
	_, waitErr := process.Wait()
	return images, errors.Join(err, waitErr)
}

// UsualLayers are where the layers of an image lie for such pods, the lowest first; those that are missing are unpacked.
func UsualLayers(store *image.Store, img *image.Image, tell func(image.Event)) ([]string, error) {
	p, err := usualPod()
	if err != nil {
		return nil, err
	}
	return p.Layers(store, img, tell)
}

// ImageUse says which images and layers the containers of this user have.
func (s *Store) ImageUse() (*image.Use, error) {
	use := &image.Use{Images: map[string][]string{}, Layers: map[string]bool{}, Remove: removeLayer}
	pods, err := s.List()
	if err != nil {
		return nil, err
	}
	for _, p := range pods {
		for _, layer := range p.Spec.Rootfs.Layers {
			use.Layers[layer] = true
		}
		containers, err := p.Containers()
		if err != nil {
			return nil, err
		}
		for _, c := range containers {
			if c.broken != nil {
				return nil, c.broken // nobody knows what it has
			}
			if c.Image.Digest != "" {
				use.Images[c.Image.Digest] = append(use.Images[c.Image.Digest], c.Title())
			}
			for _, layer := range c.Root.Layers {
				use.Layers[layer] = true
			}
		}
	}
	return use, nil
}

// removeLayer removes an unpacked layer. Its files may belong to any of the ids that this user can map.
func removeLayer(dir string) error {
	p, err := usualPod()
	if err != nil {
		return err
	}
	return p.removeTree(dir)
}

// usualPod is a pod with the ids that one has of which nothing else is said.
func usualPod() (*Pod, error) {
	f := &Facts{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Kernel: KernelVersion()}
	f.Root = f.UID == 0 && hasCapability(capability.CAP_SYS_ADMIN)
	p := &Pod{Namespaces: map[string]Choice{"user": {Kind: "host"}}}
	if f.Root {
		return p, nil
	}
	if err := f.readIDs(&p.Spec); err != nil {
		return nil, err
	}
	p.Namespaces["user"] = Choice{Kind: "new"}
	_, err := chooseMaps(p, &p.Spec, f)
	p.KeepGroups = p.OneID || f.NoSetgroups
	return p, err
}

// UnpackUsually unpacks a layer for pods of which nothing special is asked.
func UnpackUsually(store *image.Store, layer image.Layer, tell func(image.Event)) error {
	p, err := usualPod()
	if err != nil {
		return err
	}
	return p.UnpackLayer(store, layer, tell)
}
