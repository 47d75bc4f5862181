package relay

import "golang.org/x/sys/unix"

// pipe is what splice(2) moves pages through: they are handed on without being copied. A byte so moved cost
// three quarters of the processor time of one copied through the buffer.
type pipe struct{ read, write int }

// pipes are a loop's, spare and lent.
type pipes struct {
	spare []pipe
	lent  int
}

const (
	maxPipes   = 32      // of a loop: more flows than that are copied
	sparePipes = 4       // kept
	pipeSize   = 1 << 20 // bytes; fcntl(2) refuses when the user has many, pipe(7)
)

// take returns a pipe, if one may be had.
func (p *pipes) take() (pipe, bool) {
	if p.lent == maxPipes {
		return pipe{}, false
	}
	if n := len(p.spare); n > 0 {
		taken := p.spare[n-1]
		p.spare = p.spare[:n-1]
		p.lent++
		return taken, true
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return pipe{}, false
	}
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize) // a smaller one does as well
	p.lent++
	return pipe{fds[0], fds[1]}, true
}

// give takes a pipe back; only an empty one is used again.
func (p *pipes) give(back pipe, empty bool) {
	p.lent--
	if empty && len(p.spare) < sparePipes {
		p.spare = append(p.spare, back)
		return
	}
	closeAll([]int{back.read, back.write})
}

func (p *pipes) close() {
	for _, spare := range p.spare {
		closeAll([]int{spare.read, spare.write})
	}
	p.spare = nil
}
