package edgeproxy

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkConnectBulk is what a GB of one TCP connection costs in processor seconds of
// the whole process, source and sink included: without a proxy, through one, and through
// the proxies of two sites with mTLS between them. What a proxy costs is the difference
// to direct.
func BenchmarkConnectBulk(b *testing.B) {
	sink := func(c *net.TCPConn) { io.Copy(io.Discard, c); c.Write([]byte{1}) }
	b.Run("direct", func(b *testing.B) { bulk(b, tcpBackend(b, sink)) })
	b.Run("one", func(b *testing.B) {
		bulk(b, startProxy(b, Config{Loops: 1}, Deps{}, tcpTo(tcpBackend(b, sink))).addr("tcp").String())
	})
	b.Run("two", func(b *testing.B) {
		p := relaying(b, nil, sink, Deps{}, Deps{})
		p.straight()
		bulk(b, p.a.addr("tcp").String())
	})
}

func bulk(b *testing.B, addr string) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	piece := make([]byte, 128<<10)
	b.SetBytes(int64(len(piece)))
	used := func() time.Duration {
		var r unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
			b.Fatal(err)
		}
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	before := used()
	for b.Loop() {
		if _, err := c.Write(piece); err != nil {
			b.Fatal(err)
		}
	}
	c.(*net.TCPConn).CloseWrite()
	if _, err := io.ReadFull(c, piece[:1]); err != nil { // all of it has arrived
		b.Fatal(err)
	}
	b.ReportMetric((used()-before).Seconds()/(float64(b.N)*float64(len(piece))/1e9), "cpu-s/GB")
}
