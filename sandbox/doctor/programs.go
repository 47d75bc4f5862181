package doctor

import (
	"os/exec"
	"strings"
)

// ProgramPath finds a program of the machine's, as exec.LookPath does. cron, services and `env -i` have no PATH, or one without
// the folders of the administrator's programs: that does not say that they are not installed.
func ProgramPath(name string) (string, error) {
	found, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"} {
		if err == nil {
			break
		}
		found, err = exec.LookPath(dir + "/" + name)
	}
	return found, err
}

// FirstLine is the first line of what a program said, or the error where it said nothing.
func FirstLine(text string, err error) string {
	if line, _, _ := strings.Cut(strings.TrimSpace(text), "\n"); line != "" {
		return line
	}
	return err.Error()
}
