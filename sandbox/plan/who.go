package plan

import (
	"fmt"
	"strings"

	"github.com/moby/sys/user"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/pod"
)

// Whom is in words what --user asks for.
func Whom(text string) string {
	if name, group, ok := strings.Cut(text, ":"); ok {
		return fmt.Sprintf("user %q, or group %q,", name, group)
	}
	return fmt.Sprintf("user %q", text)
}

// LookUp reads UID[:GID], NAME or NAME:GROUP, with passwd(5) and group(5) as texts.
func LookUp(text string, uid, gid uint32, passwd, group string) (pod.Identity, error) {
	who := pod.Identity{UID: uid, GID: gid, Home: "/"}
	defaults := &user.ExecUser{Uid: int(uid), Gid: int(gid), Home: "/"}
	found, err := user.GetExecUser(text, defaults, strings.NewReader(passwd), strings.NewReader(group))
	if err != nil {
		return who, fault.New(nil, []string{"--user UID[:GID], or a name from the pod's own /etc/passwd"}, "no %s in the pod", Whom(text))
	}
	who.UID, who.GID, who.Home = uint32(found.Uid), uint32(found.Gid), found.Home
	for _, g := range found.Sgids {
		who.Groups = append(who.Groups, uint32(g))
	}
	entries, _ := user.ParsePasswdFilter(strings.NewReader(passwd), func(u user.User) bool { return u.Uid == found.Uid })
	if len(entries) > 0 { // a broken line is no entry
		who.Name, who.Shell = entries[0].Name, entries[0].Shell
	}
	if who.Home == "" {
		who.Home = "/"
	}
	return who, nil
}
