// Command podsh makes pods as Kubernetes has them, on a bare Linux box: groups of programs that share a localhost, a host name
// and a list of processes, and are apart from the rest of the machine. It needs no Docker, no daemon and no root.
//
// Package command reads what is typed; how a pod is made is told by package sandbox.
//
// podsh computes nothing: so Go is not to read the cgroup's CPU limit, from five files at every start.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"os"

	"github.com/podsh/podsh/command"
)

// version is set by scripts/build.
var version = "0.1.0-dev"

// commands is the one table of what podsh can do, in the order of its help; completion and the man page are made from it, too.
var commands = command.Table{
	{"Make and join", command.List{{"create", command.Create}, {"run", command.Run}, {"join", command.Join}}},
	{"Look", command.List{{"ps", command.Ps}, {"inspect", command.Inspect}, {"top", command.Top}, {"map", command.Map}}},
	{"Containers", command.List{
		{"logs", command.Logs}, {"attach", command.Attach}, {"cp", command.Cp}, {"start", command.Start}, {"restart", command.Restart},
	}},
	{"Signal and end", command.List{{"stop", command.Stop}, {"kill", command.Kill}, {"wait", command.Wait}, {"rm", command.Rm}}},
	{"Images and networks", command.List{{"image", command.Image}, {"port", command.Port}, {"network", command.Network}}},
	{"The machine, and podsh itself", command.List{
		{"pause", command.Pause}, {"doctor", command.Doctor}, {"completion", command.Completion}, {"man", command.Man}, {"version", command.Version},
	}},
}

func main() { os.Exit(command.Main(version, commands, os.Args)) }
