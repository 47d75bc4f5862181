package plan

import (
	"github.com/podsh/podsh/sandbox/ids"
)

// ExeKind is how the holder's own program is kept out of the pod's reach. A process in the pod that keeps
// /proc/1/exe open could otherwise write to podsh's file once no process runs it any more, if one of the
// pod's ids may write it (CVE-2019-5736 was of this kind).
type ExeKind int

const (
	ExePlain ExeKind = iota // no id in the pod can write the file: run it as it is
	ExeMount                // run it from a read-only mount of its own, that nobody else sees
	ExeMemfd                // run a sealed copy in memory
)

// ExeFile says where podsh's own file is and who can write it.
type ExeFile struct {
	Path string // in this mount namespace; "" if there is no such path any more
	UID  uint32
	Open bool // more than its owner may write it, or an ACL may say so
}

// Reachable says whether someone with these ids of the host may write the file, or make it writable.
func (e ExeFile) Reachable(uids []ids.Map) bool {
	_, owner := ids.Translate(uids, e.UID, false)
	return owner || e.Open
}
