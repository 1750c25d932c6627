package edgeproxy

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/loop"
)

// TestGiveBack has connections come and go: what they took is kept for the next
// until a look at memory finds it too much.
func TestGiveBack(t *testing.T) {
	p := startProxy(t, Config{Loops: 1}, Deps{}, hotObjects(fixedBackend(t)))
	const n = 400
	var conns []net.Conn
	for range n {
		c, err := net.Dial("tcp", p.addr("http").String())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	await(t, "all connections", func() bool { return p.Stats().Connections == n })
	w := p.shared.Workers[0]
	drops := func() bool {
		dropped := make(chan bool, 1)
		w.Loop.Post(loop.Func(func() { dropped <- w.DropSpares() }))
		return <-dropped
	}
	if drops() {
		t.Error("spares of connections in use are dropped")
	}
	for _, c := range conns {
		c.Close()
	}
	await(t, "none", func() bool { return p.Stats().Connections == 0 })
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	held := heap()
	tick := make(chan time.Time)
	ended := make(chan error, 1)
	go func() { ended <- p.giveBack(t.Context(), tick) }()
	tick <- time.Now()
	tick <- time.Now() // taken when the first is done
	if drops() {
		t.Error("spares of connections that are gone are still there")
	}
	if left := heap(); held < left+n*300 {
		t.Errorf("%d bytes of heap with the spares of %d connections, %d after", held, n, left)
	}
	if _, err := fetchStatus(p.addr("http").String()); err != nil {
		t.Error(err)
	}
}

// fetchStatus sends a request over a connection of its own.
func fetchStatus(addr string) (string, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.Write(hotRequest()); err != nil {
		return "", err
	}
	var version, status string
	_, err = fmt.Fscan(c, &version, &status)
	if err == nil && status != "200" {
		err = fmt.Errorf("answered %s", status)
	}
	return status, err
}

// TestReleaseProgram takes this program's pages out and goes on running.
func TestReleaseProgram(t *testing.T) {
	statm, err := os.Open("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	defer statm.Close()
	_, before, err := residentBytes(statm)
	if err != nil {
		t.Fatal(err)
	}
	if err := releaseProgram(); err != nil {
		t.Fatal(err)
	}
	_, after, err := residentBytes(statm)
	if err != nil {
		t.Fatal(err)
	}
	if after > before-before/4 {
		t.Errorf("%d bytes of the program before, %d after", before, after)
	}
}
