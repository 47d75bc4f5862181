package command

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/doctor"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/view"
)

func testRows() []psRow {
	created := time.Now().Add(-90 * time.Minute)
	return []psRow{
		{ID: "5f0c3ad91be2", Name: "web", Created: &created, Status: pod.Running, PID: 4711, Processes: 3,
			Hostname: "web", Labels: map[string]string{"tier": "front"}, Ports: manyPorts,
			Addresses: []netip.Addr{netip.MustParseAddr("fd70:6f64:7368::100"), netip.MustParseAddr("10.0.2.100")}},
		{ID: "a1b2c3d4e5f6", Status: pod.Broken, Processes: 0},
		{ID: "c0ffee000000", Name: "open", Created: &created, Status: pod.Running, PID: 4712, Processes: unknown},
		{ID: "0123456789ab", Created: &created, Status: pod.Running, PID: 4713, Processes: 1, Hub: true},
	}
}

var manyPorts = []network.Port{
	{HostPort: 8080, PodPort: 80, Protocol: "tcp"}, {HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 5353, PodPort: 53, Protocol: "udp"},
	{HostIP: netip.MustParseAddr("::1"), HostPort: 8443, PodPort: 443, Protocol: "tcp"}, {HostPort: 9000, PodPort: 9000, Protocol: "tcp"},
}

func TestArrows(t *testing.T) {
	for n, want := range []string{"", "8080->80/tcp", "8080->80/tcp,127.0.0.1:5353->53/udp",
		"8080->80/tcp,127.0.0.1:5353->53/udp,[::1]:8443->443/tcp", "8080->80/tcp,127.0.0.1:5353->53/udp,[::1]:8443->443/tcp,…"} {
		if got := arrows(manyPorts[:n]); got != want {
			t.Errorf("%d ports: %s, not %s", n, got, want)
		}
	}
}

func TestPsTable(t *testing.T) {
	var out strings.Builder
	if err := psTable(&out, testRows()); err != nil {
		t.Fatal(err)
	}
	want := `ID            NAME   AGE  STATUS   PID   PROCESSES  ADDRESS     PORTS
5f0c3ad91be2  web    1h   running  4711  3          10.0.2.100  ` + arrows(manyPorts) + `
a1b2c3d4e5f6              broken         0
c0ffee000000  open   1h   running  4712  ?
0123456789ab  (hub)  1h   running  4713  1
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

func TestPsJSON(t *testing.T) {
	var out strings.Builder
	if err := writeJSON(&out, testRows()); err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	if err := json.Unmarshal([]byte(out.String()), &rows); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"id", "name", "created", "status", "pid", "processes", "hostname", "labels", "addresses", "ports", "networks", "hub"} {
		for _, row := range rows {
			if _, ok := row[key]; !ok {
				t.Errorf("pod %v has no %q", row["id"], key)
			}
		}
	}
	if rows[0]["processes"] != 3.0 || rows[2]["processes"] != nil || rows[1]["created"] != nil {
		t.Errorf("%v", rows)
	}
}

// What others have chosen, an image its command or a process its name, does not reach the terminal as more than text.
func TestJSONIsText(t *testing.T) {
	of := map[string]string{"command": "\u009b2J\x7f\u202e\U000e0001 grüße\n"}
	var out strings.Builder
	if err := writeJSON(&out, of); err != nil {
		t.Fatal(err)
	}
	if want := "{\n  \"command\": \"\\u009b2J\\u007f\\u202e\\udb40\\udc01 grüße\\n\"\n}\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	var again map[string]string
	if err := json.Unmarshal([]byte(out.String()), &again); err != nil || !maps.Equal(again, of) {
		t.Errorf("%q, %v", again, err)
	}
}

// Nor does what is said of an error.
func TestSayIsText(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	stderr := os.Stderr
	os.Stderr = write
	say("error", usagef("\x1b[2J", "registry says \x1b]0;mine\a and\nmore grüße"))
	os.Stderr = stderr
	write.Close()
	text, err := io.ReadAll(read)
	want := "podsh: error: registry says \\x1b]0;mine\\a and\nmore grüße\npodsh: hint: \\x1b[2J\n"
	if err != nil || string(text) != want {
		t.Errorf("%v, got %q, want %q", err, text, want)
	}
}

func TestPsFormat(t *testing.T) {
	for format, want := range map[string]string{
		"{{.ID}} {{.Name}}":                          "5f0c3ad91be2 web\na1b2c3d4e5f6 \nc0ffee000000 open\n0123456789ab \n",
		"{{or .Name .ID}}":                           "web\na1b2c3d4e5f6\nopen\n0123456789ab\n",
		"{{.Age}}/{{.PID}}/{{.Processes}}":           "1h/4711/3\n/0/0\n1h/4712/?\n1h/4713/1\n",
		"{{.Labels.tier}}{{.Labels.absent}}":         "front\n\n\n\n",
		"{{.Address}}{{.Hub}}":                       "10.0.2.100false\nfalse\nfalse\ntrue\n",
		"{{range .Ports}}{{.HostPort}} {{end}}":      "8080 5353 8443 9000 \n\n\n\n",
		`{{upper .Name}}\t{{json .Labels}}\n`:        "WEB\t{\"tier\":\"front\"}\n\n\tnull\n\nOPEN\tnull\n\n\tnull\n\n",
		`table {{.Name}}\t{{.PID}}`:                  "NAME  PID\nweb   4711\n      0\nopen  4712\n      4713\n",
		"table\t{{.Name}}:{{join .Addresses \",\"}}": "NAME:ADDRESSES\nweb:fd70:6f64:7368::100,10.0.2.100\n:\nopen:\n:\n",
	} {
		show, err := podViews.format(format)
		if err != nil {
			t.Errorf("%s: %v", format, err)
			continue
		}
		var out strings.Builder
		if err := show(&out, testRows()); err != nil || out.String() != want {
			t.Errorf("%s: %q, not %q: %v", format, &out, want, err)
		}
	}
	if got := headOf("{{.Labels.tier}}") + headOf("{{range .Ports}}") + headOf("{{upper .Name}}") + headOf("{{end}}"); got != "TIERNAME" {
		t.Errorf("head %q", got)
	}
	rows := testRows()
	for format, other := range map[string]show[psRow]{"json": asJSON[psRow], "table": psTable, "": psTable} {
		var out, want strings.Builder
		show, err := podViews.format(format)
		if err == nil {
			err = errors.Join(show(&out, rows), other(&want, rows))
		}
		if err != nil || out.String() != want.String() {
			t.Errorf("%q: %s%v", format, &out, err)
		}
	}
}

func TestPsFormatMalformed(t *testing.T) {
	for format, want := range map[string]string{
		"{{": "unclosed action", "{{.Nothing}}": "no field .Nothing", "{{.ID.Nothing}}": "no field .Nothing", "{{nothing .ID}}": `no function "nothing"`,
		"table {{.Names}}": "no field .Names", "table {{": "unclosed action", "{{.ID}": "bad character", "{{lt .ID 3}}": "lt .ID 3 does not go",
		"{{index .Addresses 7}}": "index .Addresses 7 does not go", "{{join .ID \",\"}}": "does not go", "pretty": "the same for each", "tables": "the same for each",
		"table ": "the same for each", "{{template \"x\"}}": "does not go",
	} {
		_, err := podViews.format(format)
		if err == nil || !strings.Contains(err.Error(), want) || len(doctor.Hints(err)) != 1 {
			t.Errorf("%q: %v, %q", format, err, doctor.Hints(err))
			continue
		}
		for _, word := range []string{"command.", "template: -", "executing", "evaluate"} {
			if strings.Contains(err.Error(), word) {
				t.Errorf("%q: %v", format, err)
			}
		}
	}
}

// What the help says of fields is what there is.
func TestFields(t *testing.T) {
	for _, v := range []struct {
		fields string
		of     reflect.Type
	}{{psFields, reflect.TypeFor[psRow]()}, {containerFields, reflect.TypeFor[containerRow]()}} {
		known := strings.Fields(v.fields)
		for i := range v.of.NumField() {
			if name := v.of.Field(i).Name; !slices.Contains(known, name) {
				t.Errorf("%v: no word of %s", v.of, name)
			}
		}
		for _, name := range known {
			_, isField := v.of.FieldByName(name)
			if _, isMethod := v.of.MethodByName(name); !isField && !isMethod {
				t.Errorf("%v has no %s", v.of, name)
			}
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59 * time.Second: "59s", time.Minute: "1m", 3 * time.Hour: "3h", 50 * time.Hour: "2d",
	} {
		if got := age(d); got != want {
			t.Errorf("%v: %s, not %s", d, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[uint64]string{0: "0", 1023: "1023", 1024: "1K", 1536: "1.5K", 3 << 20: "3M", 1 << 60: "1024.0P"} {
		if got := size(bytes); got != want {
			t.Errorf("%d: %s, not %s", bytes, got, want)
		}
	}
}

func TestBranchLines(t *testing.T) {
	many := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	tree := &view.Branch{Inode: 1, Residents: []string{"(host)"},
		Groups: []*view.Group{{Residents: []string{"(host)"}, Namespaces: []string{"pid", "net"}}, {Residents: many, Namespaces: []string{"time"}}},
		Below: []*view.Branch{
			{Inode: 2, Maker: 1000, Residents: []string{"a"}, Groups: []*view.Group{{Residents: []string{"a"}, Namespaces: []string{"net"}}}},
			{Inode: 3, Maker: 1000, Residents: many[1:]},
		}}
	want := `user namespace 1 of (host), made by uid 0
├─ (host)                  pid net
├─ a b c d e f and 2 more  time
├─ user namespace 2 of a, made by uid 1000
│  └─ a  net
└─ user namespace 3 of b c d e f g and 1 more, made by uid 1000`
	if got := branchTitle(tree) + "\n" + strings.Join(branchLines(tree), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
