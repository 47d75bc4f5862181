package stack

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/podsh/podsh/network/testns"
	"golang.org/x/sys/unix"
)

// soon are times that a test can wait for: a side that is gone is noticed within three seconds.
func soon() times {
	soon := defaultTimes
	soon.idle, soon.interval, soon.probes = time.Second, time.Second, 2
	soon.retries, soon.orphan = 2, time.Second
	return soon
}

// longer is more than all of them, whatever follows on one another.
const longer = 7 * time.Second

// ending starts a lab whose ends are noticed soon, and whose kernels forget closed connections soon.
func ending(t *testing.T) (*lab, *Stack) {
	l := newLab(t)
	for _, where := range []*os.File{l.pod, l.other} {
		l.sysctl(where, "net.ipv4.tcp_fin_timeout", "1")
	}
	return l, l.startWith(Config{}, newLimits(sizesFor(defaultDescriptors), soon(), false))
}

// sysctl sets a value in the namespace behind where (nil: the host's).
func (l *lab) sysctl(where *os.File, name, value string) {
	l.t.Helper()
	set := func() {
		if err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0); err != nil {
			l.t.Error(err)
		}
	}
	if where == nil {
		set()
		return
	}
	testns.In(l.t, where, set)
}

// connect connects the pod to a server at port, and returns both ends.
func (l *lab) connect(port int) (pod, server *net.TCPConn) {
	l.t.Helper()
	accepted := make(chan *net.TCPConn, 1)
	release := make(chan struct{})
	l.listen(l.other, join("10.9.0.2", port), func(conn *net.TCPConn) {
		accepted <- conn
		<-release
	})
	l.t.Cleanup(func() { close(release) })
	conn, err := l.dial("tcp", join("10.9.0.2", port))
	if err != nil {
		l.t.Fatal(err)
	}
	conn.SetDeadline(time.Time{})
	return conn.(*net.TCPConn), <-accepted
}

// patience is how long what is to come may take: on a busy machine seconds, where nothing is wrong. A kernel that is to forget
// a connection waits not only as long as it is told to, but 3.5 times what it thinks an answer may take (tcp_time_wait of
// net/ipv4/tcp_minisocks.c). What is not to come is waited for much shorter, at each place.
const patience = 40 * time.Second

// none waits until the Stack has no connection.
func none(t *testing.T, s *Stack, why string) {
	t.Helper()
	eventually(t, why, func() bool { return s.Counters().Connections == 0 }, s.seen)
}

// A pod that has closed, and whose server has not, keeps nothing once its kernel has forgotten the connection; and so
// does one that is gone without a word.
func TestPodGone(t *testing.T) {
	t.Parallel()
	if !testns.Inside(t) {
		return
	}
	l, s := ending(t)
	pod, server := l.connect(80)
	pod.Write([]byte("x"))
	pod.Close()
	none(t, s, "a pod that closed is forgotten")
	eventually(t, "the host's kernel forgets it, too", func() bool { return testns.Run(t, "ss", "-Htan") == "" })
	server.Read(make([]byte, 1))
	if n, err := server.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the server got %d bytes and %v, not the end", n, err)
	}

	pod, server = l.connect(81)
	pod.CloseWrite()
	l.connect(82)
	_, unacknowledged := l.connect(83)
	testns.In(t, l.pod, func() { testns.Run(t, "ip", "addr", "del", "10.0.2.100/24", "dev", "tun0") })
	unacknowledged.Write(make([]byte, 256<<10))
	none(t, s, "a pod without an address is forgotten")
	server.Write([]byte("x"))
	if _, err := io.Copy(io.Discard, server); err == nil {
		eventually(t, "the server hears of it", func() bool { _, err := server.Write([]byte("x")); return err != nil })
	}
}

// A server that is gone keeps nothing either: one that has closed altogether, and one that says nothing any more,
// where the pod waits for it and where it does not.
func TestServerGone(t *testing.T) {
	t.Parallel()
	if !testns.Inside(t) {
		return
	}
	l, s := ending(t)
	pod, server := l.connect(80)
	server.Close()
	if _, err := pod.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
	none(t, s, "a server that closed is forgotten")
	eventually(t, "the pod hears of it", func() bool { _, err := pod.Write([]byte("x")); return err != nil })

	l.connect(81)
	closed, ended := l.connect(82)
	closed.CloseWrite()
	if _, err := ended.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
	eventually(t, "the host's kernel knows that the server has its end", func() bool {
		return testns.Run(t, "ss", "-Htn", "state", "fin-wait-2") != ""
	})
	_, server = l.connect(83)
	server.CloseWrite()
	testns.In(t, l.other, func() { testns.Run(t, "ip", "addr", "del", "10.9.0.2/24", "dev", "c0") })
	none(t, s, "a server without an address is forgotten")
}

// Whoever is there keeps its connection, however long nothing happens: open, ended in either direction, and with a
// reader that does not read.
func TestLive(t *testing.T) {
	t.Parallel()
	if !testns.Inside(t) {
		return
	}
	l, s := ending(t)
	pods, servers := [4]*net.TCPConn{}, [4]*net.TCPConn{}
	for i := range pods {
		pods[i], servers[i] = l.connect(80 + i)
	}
	pods[1].CloseWrite()
	servers[2].CloseWrite()
	data := make([]byte, 24<<20)
	rand.New(rand.NewSource(3)).Read(data)
	go func() {
		servers[3].Write(data)
		servers[3].CloseWrite()
	}()
	talk := func(what string, from, to *net.TCPConn) {
		t.Helper()
		from.SetDeadline(time.Now().Add(patience))
		to.SetDeadline(time.Now().Add(patience))
		got := make([]byte, 5)
		if _, err := from.Write([]byte("hello")); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := io.ReadFull(to, got); err != nil || string(got) != "hello" {
			t.Errorf("%s: %q %v", what, got, err)
		}
	}
	<-time.After(longer) // time itself is what is tried
	talk("to a server", pods[0], servers[0])
	talk("from a server", servers[0], pods[0])
	talk("to a pod that has ended", servers[1], pods[1])
	talk("to a server that has ended", pods[2], servers[2])
	got, err := io.ReadAll(pods[3])
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("to a pod that did not read: %d bytes of %d, or others: %v", len(got), len(data), err)
	}
	if n := s.Counters().Connections; n != 4 {
		t.Errorf("%d connections", n)
	}
}

// narrow makes the host's side keep little of what a server does not read.
func (l *lab) narrow() {
	l.sysctl(nil, "net.ipv4.tcp_wmem", "4096 16384 16384")
	l.sysctl(l.other, "net.ipv4.tcp_rmem", "4096 16384 16384")
}

// What a pod has sent before it ended and went arrives, though its kernel knows nothing of it any more; but whoever
// takes none of it does not keep it for ever.
func TestOrphan(t *testing.T) {
	t.Parallel()
	if !testns.Inside(t) {
		return
	}
	l, s := ending(t)
	l.narrow()
	data := make([]byte, 200<<10)
	rand.New(rand.NewSource(4)).Read(data)
	pod, server := l.connect(80)
	if _, err := pod.Write(data); err != nil {
		t.Fatal(err)
	}
	pod.Close()
	eventually(t, "the pod's kernel has forgotten it", func() (gone bool) {
		testns.In(t, l.pod, func() { gone = testns.Run(t, "ss", "-Htan") == "" })
		return gone
	})
	var got []byte
	buffer := make([]byte, 20<<10)
	for { // slowly: all of it takes longer than an orphan may keep still
		server.SetDeadline(time.Now().Add(patience))
		n, err := server.Read(buffer)
		if got = append(got, buffer[:n]...); err != nil {
			if err != io.EOF {
				t.Error(err)
			}
			break
		}
		<-time.After(100 * time.Millisecond)
	}
	if !bytes.Equal(got, data) {
		t.Errorf("%d bytes of %d arrived, or others", len(got), len(data))
	}
	none(t, s, "it is over then")

	pod, _ = l.connect(81)
	if _, err := pod.Write(data); err != nil {
		t.Fatal(err)
	}
	pod.Close()
	none(t, s, "what nobody reads is given up")
}

// A pod that resets a connection whose server reads nothing resets that of the host, too; and one that is written to
// after it closed does.
func TestPodResets(t *testing.T) {
	t.Parallel()
	if !testns.Inside(t) {
		return
	}
	l, s := ending(t)
	l.narrow()
	pod, server := l.connect(80)
	pod.SetWriteDeadline(time.Now().Add(time.Second))
	if n, err := pod.Write(make([]byte, 24<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes went out: %v", n, err)
	}
	pod.SetLinger(0)
	pod.Close()
	none(t, s, "the server's side is reset")
	if _, err := io.Copy(io.Discard, server); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the server: %v", err)
	}

	pod, server = l.connect(81)
	pod.Close()
	eventually(t, "the server is reset", func() bool {
		_, err := server.Write([]byte("x"))
		return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
	})
	none(t, s, "nothing is left")
}

// What a pod had open is gone when it is said to have ended.
func TestForget(t *testing.T) {
	t.Parallel()
	if !testns.Inside(t) {
		return
	}
	l, s := ending(t)
	l.echoUDP(l.other, "10.9.0.2:80")
	_, server := l.connect(80)
	conn, err := l.dial("udp", "10.9.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, conn, "hello")
	l.sysctl(l.other, "net.ipv4.ip_forward", "0")
	testns.Run(t, "ip", "route", "add", "192.0.2.0/24", "via", "10.9.0.2") // where nothing answers
	l.hang(1, [4]byte{192, 0, 2, 1})
	eventually(t, "one connection is there, and another on its way", func() bool {
		return s.Counters().Opened == 1 && s.Uses("")[1].Own.Used == 1
	}, s.seen)
	s.Forget("another")
	if c := s.Counters(); c.Connections != 2 || c.Flows != 1 {
		t.Errorf("%+v", c)
	}
	s.Forget("")
	eventually(t, "the connections are gone", func() bool { return s.Counters().Connections == 0 }, s.seen)
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the server: %v", err)
	}
	if c := s.Counters(); c.Flows != 0 {
		t.Errorf("%+v", c)
	}
}

// What a host does natively, as long as nobody says otherwise: a minute until a side is asked whether it is there.
func TestDefaultTimes(t *testing.T) {
	if !testns.Inside(t) {
		return
	}
	l := newLab(t)
	l.start(Config{})
	l.connect(80)
	timers := testns.Run(t, "ss", "-Htno", "state", "established", "dst", "10.9.0.2")
	if !strings.Contains(timers, "timer:(keepalive,59sec") && !strings.Contains(timers, "timer:(keepalive,1min") {
		t.Errorf("the host's side: %s", timers)
	}
	if d := defaultTimes; d.idle != time.Minute || d.interval > 15*time.Second || d.orphan > 5*time.Minute || d.asked < 2*time.Minute {
		t.Errorf("%+v", d)
	}
}
