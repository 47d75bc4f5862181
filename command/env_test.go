package command

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEnvFile(t *testing.T) {
	t.Setenv("OWN", "mine")
	long := strings.Repeat("x", 1<<17)
	for text, want := range map[string][]string{
		"A=1\nB=2": {"A=1", "B=2"}, "\xef\xbb\xbfA=1\n": {"A=1"}, "A=1\r\n\r\nB=2\r\n": {"A=1", "B=2"},
		"# A=1\n  # B\n\n \t\n\tC= 3 \n": {"C= 3 "}, "export A=1\nexport\tB=2\nexport   C=3": {"A=1", "B=2", "C=3"},
		"exported=1\nexport=2": {"exported=1", "export=2"}, "OWN\nexport OWN\nNOBODYS": {"OWN=mine", "OWN=mine"},
		"A=a=b #c\nB=\"q\"\nC=": {"A=a=b #c", `B="q"`, "C="}, "L=" + long + "\nM=1": {"L=" + long, "M=1"}, "": nil, "\xef\xbb\xbf": nil,
	} {
		if got, err := envFileOf(t, text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%.40q: %.80q, not %.80q: %v", text, got, want, err)
		}
	}
	for text, why := range map[string]string{
		"SP ACE=1": "line 1: ", "A=1\nB =2": `line 2: no variable is called "B "`, "export A B=1": "line 1: ", "\n\n=x": "line 3 is no variable",
		"A=1\x00": "line 1 has a null byte", "\xff\xfeA\x00=\x001\x00": "UTF-16", "export =1": "line 1 is no variable", "A\u00a0B=1": "line 1: ",
	} {
		if got, err := envFileOf(t, text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %q, and not %q: %v", text, got, why, err)
		}
	}
	if _, err := envFile(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there is read")
	}
}

func envFileOf(t *testing.T, text string) ([]string, error) {
	name := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return envFile(name)
}
