package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// pieceBytes is what the source writes and the sink reads at one time, as iperf3 does.
const pieceBytes = 128 << 10

// bulk is what a source of bytes sent in one run.
type bulk struct {
	Bytes int64         `json:"bytes"`
	Took  time.Duration `json:"took"`
	Why   string        `json:"why,omitempty"`
}

// serveSink takes whatever comes on any connection until its standard input ends,
// and tells on each connection's end how much that was.
func serveSink(in io.Reader, out io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, l.Addr())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				n, buf := int64(0), make([]byte, pieceBytes)
				for {
					k, err := c.Read(buf)
					n += int64(k)
					if err != nil {
						// The count goes back to who sent, which is how that one knows that
						// all of it arrived.
						fmt.Fprintln(c, n)
						return
					}
				}
			}()
		}
	}()
	_, err = io.Copy(io.Discard, in)
	return errors.Join(err, l.Close())
}

// serveSource sends as fast as it goes when it is asked to.
func serveSource(args []string, in io.Reader, out io.Writer) error {
	fs := flag.NewFlagSet(roleSource, flag.ContinueOnError)
	addr := fs.String("addr", "", "proxy")
	if err := fs.Parse(args); err != nil {
		return err
	}
	answers := json.NewEncoder(out)
	for orders := json.NewDecoder(in); ; {
		var o order
		if err := orders.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		b, err := send(*addr, o.Duration)
		if err != nil {
			b.Why = err.Error()
		}
		if err := answers.Encode(b); err != nil {
			return err
		}
	}
}

func send(addr string, d time.Duration) (b bulk, err error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return b, err
	}
	defer c.Close()
	piece := make([]byte, pieceBytes)
	began := time.Now()
	for time.Since(began) < d {
		n, err := c.Write(piece)
		b.Bytes += int64(n)
		if err != nil {
			return b, err
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return b, err
	}
	if err := c.SetReadDeadline(time.Now().Add(answerLimit)); err != nil {
		return b, err
	}
	var arrived int64
	if _, err := fmt.Fscan(c, &arrived); err != nil {
		return b, fmt.Errorf("what arrived: %w", err)
	}
	b.Took = time.Since(began)
	if arrived != b.Bytes {
		return b, fmt.Errorf("%d of %d bytes arrived", arrived, b.Bytes)
	}
	return b, nil
}

// measureTCP passes bytes on through one connection. CPU is in seconds per GB then,
// Rate in GB/s, Requests the bytes.
func measureTCP(ctx context.Context, o options, at placement, r *running) (_ sample, err error) {
	if err := ctx.Err(); err != nil {
		return sample{}, err
	}
	source, err := startChild(at.restCPUs, roleSource, "--addr", r.addr)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, source.stop()) }()
	run := func(d time.Duration) (b bulk, err error) {
		if err := source.ask(order{Duration: d}, &b); err != nil {
			return b, err
		}
		if b.Why != "" {
			return b, errors.New(b.Why)
		}
		return b, nil
	}
	if o.warmup > 0 {
		if _, err := run(o.warmup); err != nil {
			return sample{}, err
		}
	}
	before, err := r.usage()
	if err != nil {
		return sample{}, err
	}
	got, err := run(o.duration)
	if err != nil {
		return sample{}, err
	}
	after, err := r.usage()
	if err != nil {
		return sample{}, err
	}
	cpu := after.cpu - before.cpu
	if cpu <= 0 {
		return sample{}, errors.New("a thread of the proxy ended during the run: its CPU is unknown")
	}
	const gb = 1e9
	return sample{
		CPU: cpu.Seconds() / (float64(got.Bytes) / gb), Rate: float64(got.Bytes) / gb / got.Took.Seconds(),
		RSS: float64(after.rss) / mb, PSS: float64(after.pss) / mb, Requests: int(got.Bytes),
	}, nil
}

// streamProxies are those that pass connections or datagrams on whole, ours first.
func streamProxies(o options, mode string) (ours proxy, peers []proxy, err error) {
	if ours, err = ourProxy(o, o.ours); err != nil {
		return ours, nil, err
	}
	conf, names := "meridian-tcp.yaml", []string{"haproxy-splice", "nginx-stream", bareSplice}
	if mode == modeUDP {
		conf, names = "meridian-udp.yaml", []string{"nginx-udp"}
	}
	ours.conf, ours.stream, ours.packets = o.confFile(conf), true, mode == modeUDP
	if o.vs != "" {
		other, err := ourProxy(o, o.vs)
		if err != nil {
			return ours, nil, err
		}
		other.name, other.conf, other.stream, other.packets = otherBuild, ours.conf, true, ours.packets
		peers, names = append(peers, other), nil
	}
	for _, name := range names {
		p, err := peerProxy(o, name)
		if err != nil {
			return ours, nil, err
		}
		if _, err := os.Stat(nginxStream); strings.HasPrefix(name, "nginx-") && err != nil {
			return ours, nil, fmt.Errorf("%w: install it (apt-get install libnginx-mod-stream) or leave modes tcp and udp out", err)
		}
		p.stream, p.packets = true, ours.packets
		peers = append(peers, p)
	}
	return ours, peers, nil
}

// nginxStream is the module that nginx-stream.conf and nginx-udp.conf load.
const nginxStream = "/usr/lib/nginx/modules/ngx_stream_module.so"
