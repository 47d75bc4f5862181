package command

import (
	"github.com/podsh/podsh/image"
	images "github.com/podsh/podsh/image/program"
	"github.com/podsh/podsh/network/program"
	"github.com/podsh/podsh/sandbox/ask"
	"github.com/podsh/podsh/sandbox/container"
	"github.com/podsh/podsh/sandbox/disk"
	"github.com/podsh/podsh/sandbox/supervise"
	"github.com/podsh/podsh/sandbox/wire"
)

// roleOf is the main function of a process that podsh has started for some work of its own, under a name of its own; nil
// for podsh as people call it.
func roleOf(name string) func(args []string) int {
	switch name {
	case program.Name:
		return networkMain
	case images.Name, image.UnpackName:
		return imageMain
	case ask.SuperviseName:
		return supervise.Supervise
	case wire.KeepName:
		return wire.Keep
	case container.CopyName:
		return container.CopyMain
	case disk.RemoveName:
		return disk.RemoveMain
	}
	return nil
}
