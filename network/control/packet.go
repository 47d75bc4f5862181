package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// MostSockets is how many descriptors one message takes, unix(7).
const MostSockets = 253

const (
	largest = 1 << 17  // bytes of a packet
	longest = 64 << 20 // of a message: a pod may have all ports of a host published
)

// A message that one packet can't hold comes in several, each with a byte before its part: more, or last. One that
// begins like JSON is whole.
const (
	more = '+'
	last = '.'
)

// Pair makes two connected ends.
func Pair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control"), nil
}

// Ask sends a request and waits for its answer.
func Ask(conn *os.File, request *Request, files ...*os.File) (*Answer, error) {
	if err := Send(conn, request, files...); err != nil {
		return nil, err
	}
	answer := &Answer{}
	if _, err := Receive(conn, answer); err != nil {
		return nil, fmt.Errorf("answer of the network's helper: %w", err)
	}
	return answer, nil
}

// Send sends one message.
func Send(conn *os.File, value any, files ...*os.File) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if len(text) > longest {
		return fmt.Errorf("a message of %d bytes: more than %d", len(text), longest)
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, file := range files {
			fds[i] = int(file.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	if len(text) <= largest {
		return sendPacket(conn, text, rights)
	}
	const part = largest - 1
	for ; len(text) > part; text, rights = text[part:], nil {
		if err := sendPacket(conn, slices.Concat([]byte{more}, text[:part]), rights); err != nil {
			return err
		}
	}
	return sendPacket(conn, slices.Concat([]byte{last}, text), nil)
}

func sendPacket(conn *os.File, packet, rights []byte) error {
	for {
		switch err := unix.Sendmsg(int(conn.Fd()), packet, rights, nil, unix.MSG_NOSIGNAL); err {
		case nil:
			return nil
		case unix.EINTR:
		default:
			return fmt.Errorf("sendmsg: %w", err)
		}
	}
}

// Receive takes one message in, and the descriptors that came with it. At the end it returns io.EOF.
func Receive(conn *os.File, value any) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			Close(files)
			files = nil
		}
	}()
	packet := make([]byte, largest)
	var text []byte
	for {
		n, came, err := receivePacket(conn, packet)
		files = append(files, came...)
		if err != nil {
			return files, err
		}
		goesOn := packet[0] == more
		if text == nil && !goesOn {
			return files, json.Unmarshal(packet[:n], value)
		}
		if !goesOn && packet[0] != last || len(text)+n > longest {
			return files, errors.New("a message in parts that don't belong together")
		}
		if text = append(text, packet[1:n]...); !goesOn {
			return files, json.Unmarshal(text, value)
		}
	}
}

// receivePacket takes one packet in, of at least one byte.
func receivePacket(conn *os.File, packet []byte) (n int, files []*os.File, err error) {
	control := make([]byte, unix.CmsgSpace(4*MostSockets))
	var oob, flags int
	for {
		n, oob, flags, _, err = unix.Recvmsg(int(conn.Fd()), packet, control, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return 0, nil, fmt.Errorf("recvmsg: %w", err)
	}
	files, err = received(control[:oob])
	switch {
	case err != nil:
	case flags&unix.MSG_CTRUNC != 0:
		err = errTooManyFiles
	case n == 0:
		err = io.EOF
	case flags&unix.MSG_TRUNC != 0:
		err = errors.New("a packet was cut off")
	}
	return n, files, err
}

// errTooManyFiles is what the kernel says by leaving descriptors out, unix(7).
var errTooManyFiles = fmt.Errorf("the network's helper can't take more descriptors: %w", unix.EMFILE)

// FileLimitHint says what to do where a process that may have so many descriptors has too few.
func FileLimitHint(limit uint64) string {
	return fmt.Sprintf("ports and connections take descriptors, and `ulimit -Hn` is %d: raise that before the pod is created (limits.conf(5)), or ask for less", limit)
}

func received(control []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // another kind of message brings none
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

// Close closes descriptors that nobody has a use for; nil is none.
func Close(files []*os.File) {
	for _, file := range files {
		_ = file.Close() // closed already is as good
	}
}
