package proc

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/ids"
)

// Process is one process of a pod, as the host's /proc shows it.
type Process struct {
	PID     int       `json:"pid"`     // on the host
	PodPID  int       `json:"pod_pid"` // in the pod
	HostUID uint32    `json:"host_uid"`
	UID     *uint32   `json:"uid"` // in the pod; nil for a user that the pod has no number for
	State   string    `json:"state"`
	RSS     uint64    `json:"rss_bytes"`
	Started time.Time `json:"started"`
	CPU     float64   `json:"cpu_seconds"`
	Name    string    `json:"name"`    // comm: what the kernel calls it, proc_pid_comm(5)
	Command []string  `json:"command"` // its arguments; none for a zombie
	Holder  bool      `json:"holder"`  // the pause
}

// CommandLine is the command in one line that is safe to print: a process chooses its name and arguments
// itself, and they may hold escapes that drive the terminal.
func (p *Process) CommandLine() string {
	if len(p.Command) == 0 {
		return "[" + Printable(p.Name) + "]"
	}
	return Printable(strings.Join(p.Command, " "))
}

// Printable replaces what is no visible character by what a Go or shell string would have for it.
func Printable(text string) string {
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == '\uFFFD' && !strings.HasPrefix(text[i:], "\uFFFD"): // not UTF-8
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}

// Reader reads processes of one pod.
type Reader struct {
	holder int
	depth  int // of the pod's pid namespace below ours
	uids   []ids.Map
	now    time.Time
	since  time.Duration // boot
}

// NewReader reads what the processes of a pod are seen by, of its holder.
func NewReader(holder int) (*Reader, error) {
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return nil, fmt.Errorf("clock_gettime: %w", err)
	}
	r := &Reader{holder: holder, now: time.Now(), since: time.Duration(boot.Nano())}
	status, err := ReadStatus(holder)
	if err != nil {
		return nil, err
	}
	r.depth = max(0, len(strings.Fields(status["NSpid"]))-1)
	r.uids, err = ReadIDs(holder, "uid_map")
	return r, err
}

// Read reads one process; an error means that it is gone.
func (r *Reader) Read(pid int) (Process, error) {
	status, err := ReadStatus(pid)
	if err != nil {
		return Process{}, err
	}
	process := Process{PID: pid, PodPID: pid, Name: status["Name"], Command: readCommand(pid), Holder: pid == r.holder}
	if pids := strings.Fields(status["NSpid"]); r.depth < len(pids) {
		process.PodPID, _ = strconv.Atoi(pids[r.depth])
	}
	if ids := strings.Fields(status["Uid"]); len(ids) > 1 {
		uid, _ := strconv.ParseUint(ids[1], 10, 32) // the effective one
		process.HostUID = uint32(uid)
	}
	if uid, ok := ids.Translate(r.uids, process.HostUID, false); ok {
		process.UID = &uid
	}
	process.State, _, _ = strings.Cut(status["State"], " ")
	kilobytes, _ := strconv.ParseUint(strings.TrimSuffix(status["VmRSS"], " kB"), 10, 64)
	process.RSS = kilobytes * 1024
	return process, r.times(&process)
}

// Ticks of the clock a second, as /proc counts them. It is 100 wherever Linux runs: USER_HZ.
const Ticks = 100

// times reads fields 14, 15 and 22 of /proc/PID/stat.
func (r *Reader) times(process *Process) error {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process.PID))
	if err != nil {
		return err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return fmt.Errorf("/proc/%d/stat has %d fields", process.PID, len(fields)+2)
	}
	var numbers [20]int64
	for i, field := range fields[:20] {
		numbers[i], _ = strconv.ParseInt(field, 10, 64) // of those wanted, all are numbers
	}
	process.CPU = float64(numbers[11]+numbers[12]) / Ticks
	process.Started = r.now.Add(time.Duration(numbers[19])*time.Second/Ticks - r.since)
	return nil
}

// ReadStatus reads /proc/PID/status by its names, proc_pid_status(5).
func ReadStatus(pid int) (map[string]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	status := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		status[name] = strings.TrimSpace(value)
	}
	return status, nil
}

// longestCommand bounds what is read of a command line: its process may make it megabytes long.
const longestCommand = 4096

func readCommand(pid int) []string {
	file, err := os.Open(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, longestCommand))
	line := strings.TrimRight(string(text), "\x00")
	if err != nil || line == "" {
		return nil
	}
	return strings.Split(line, "\x00")
}

// ReadIDs reads the uid_map or gid_map that a process is under, user_namespaces(7).
func ReadIDs(pid int, name string) ([]ids.Map, error) {
	path := fmt.Sprintf("/proc/%d/%s", pid, name)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ids.ParseFile(path, string(text))
}
