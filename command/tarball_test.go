package command

import (
	"archive/tar"
	"bytes"
	"os"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// tarball FILE ENTRY...: a tar with what tar(1) would not put there. An entry is dir:NAME[:MODE[:OWNER]], file:NAME,
// device:NAME, link:NAME:TARGET (symbolic) or hard:NAME:TARGET.
func verbTarball(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: tarball FILE ENTRY...")
	}
	var text bytes.Buffer
	w := tar.NewWriter(&text)
	for _, entry := range args[1:] {
		kind, name, _ := strings.Cut(entry, ":")
		name, target, _ := strings.Cut(name, ":")
		h := &tar.Header{Name: name, Linkname: target, Mode: 0o755}
		body := ""
		switch kind {
		case "dir":
			h.Typeflag = tar.TypeDir
			setFolder(ts, h, target)
		case "file":
			h.Typeflag, body = tar.TypeReg, "hostile\n"
		case "link":
			h.Typeflag = tar.TypeSymlink
		case "hard":
			h.Typeflag = tar.TypeLink
		case "device":
			h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, 1, 5 // /dev/zero
		default:
			ts.Fatalf("no kind of entry %q", kind)
		}
		h.Size = int64(len(body))
		ts.Check(w.WriteHeader(h))
		_, err := w.Write([]byte(body))
		ts.Check(err)
	}
	ts.Check(w.Close())
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), text.Bytes(), 0o644))
}

// setFolder reads MODE[:OWNER]; nothing is 755 and root.
func setFolder(ts *testscript.TestScript, h *tar.Header, text string) {
	h.Linkname = ""
	mode, owner, hasOwner := strings.Cut(text, ":")
	if mode == "" {
		return
	}
	var err error
	h.Mode, err = strconv.ParseInt(mode, 8, 32)
	ts.Check(err)
	if hasOwner {
		h.Uid, err = strconv.Atoi(owner)
		ts.Check(err)
		h.Gid = h.Uid
	}
}
