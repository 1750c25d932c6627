package edgeproxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkEastWest is what a request costs in processor seconds of the whole process,
// clients and backend included, through the proxies of two sites with mTLS between them.
func BenchmarkEastWest(b *testing.B) {
	there := rawBackend(b, func(_ int, c net.Conn, in *bufio.Reader) {
		for {
			for {
				line, err := in.ReadSlice('\n')
				if err != nil {
					return
				}
				if len(line) == 2 {
					break
				}
			}
			if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"); err != nil {
				return
			}
		}
	})
	for _, clients := range []int{1, 8, 64} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			p := relayedBy(b, siteObjects, map[string]string{"b": there}, Deps{}, Deps{})
			p.a.apply(trusting(siteObjects(p.endpoints, map[string]string{"b": p.b.addr("eastwest").String()}), p.trust()))
			used := func() time.Duration {
				var r unix.Rusage
				if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
					b.Fatal(err)
				}
				return time.Duration(r.Utime.Nano() + r.Stime.Nano())
			}
			var conns []net.Conn
			for range clients {
				c, err := net.Dial("tcp", p.a.addr("http").String())
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				conns = append(conns, c)
			}
			var left atomic.Int64
			round := func(n int) {
				left.Store(int64(n))
				var wg sync.WaitGroup
				for _, c := range conns {
					wg.Go(func() {
						in := bufio.NewReader(c)
						for left.Add(-1) >= 0 {
							fmt.Fprint(c, "GET /path HTTP/1.1\r\nHost: x\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\r\n")
							res, err := http.ReadResponse(in, nil)
							if err != nil {
								b.Error(err)
								return
							}
							if res.StatusCode != 200 {
								b.Error(res.Status)
								return
							}
							io.Copy(io.Discard, res.Body)
						}
					})
				}
				wg.Wait()
			}
			round(clients * 10)
			before := used()
			b.ResetTimer()
			round(b.N)
			b.ReportMetric(float64((used()-before).Microseconds())/float64(b.N), "cpu-us/op")
			if n := p.b.Loads(nil)[0].From; len(n) == 0 {
				b.Error("nothing came over")
			}
		})
	}
}
