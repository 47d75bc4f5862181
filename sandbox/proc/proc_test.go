package proc

import (
	"os/exec"
	"strings"
	"testing"
)

func TestACommandLineOfAnyLength(t *testing.T) {
	cmd := exec.Command("sh", "-c", "read x", strings.Repeat("x", 100_000))
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		_ = cmd.Wait()
	}()
	if n := len(strings.Join(readCommand(cmd.Process.Pid), " ")); n > longestCommand {
		t.Errorf("%d bytes", n)
	}
}
