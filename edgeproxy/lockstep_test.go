package edgeproxy

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// stepper is a backend whose answers come all at one time.
type stepper struct {
	arrived chan net.Conn // a request came on it
}

func (s *stepper) serve(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 64<<10)
	for have := 0; ; {
		n, err := c.Read(buf[have:])
		if err != nil {
			return
		}
		if have += n; bytes.HasSuffix(buf[:have], []byte("\r\n\r\n")) {
			have = 0
			s.arrived <- c
		}
	}
}

// halt holds a loop in a turn of its own until it is let go: what comes meanwhile
// comes at one time.
type halt struct {
	entered, over chan struct{}
}

func (h *halt) Run() {
	h.entered <- struct{}{}
	<-h.over
}

// asksLittle counts the system calls of 64 busy connections. They go in lock-step:
// the loop is held while all ask and while all are answered, so that the figure is
// the path's own and not that of how a busy machine lets the two sides run.
func asksLittle(t *testing.T, p *proxy, copies int) {
	const clients, rounds, warm = 64, 100, 10
	backend := &stepper{arrived: make(chan net.Conn, 2*clients*copies)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go backend.serve(c)
		}
	}()
	o := p.snap.Objects
	o.Services = append(o.Services[:0:0], o.Services...)
	echo := *o.Services[0]
	echo.Spec.Endpoints = service("echo", l.Addr().String()).Spec.Endpoints
	o.Services[0] = &echo
	p.apply(o)

	conns := make([]net.Conn, clients)
	for i := range conns {
		conns[i] = p.dial("http")
	}
	request, loop := hotRequest(), p.shared.Workers[0].Loop
	h := &halt{make(chan struct{}), make(chan struct{})}
	hold := func() { loop.Post(h); <-h.entered }
	var answer []byte
	first := make([]byte, 4096)
	var before uint64
	for round := range warm + rounds {
		if round == warm {
			before = p.Stats().Loops[0].Syscalls
		}
		hold()
		for _, c := range conns {
			if _, err := c.Write(request); err != nil {
				t.Fatal(err)
			}
		}
		h.over <- struct{}{}
		var asked []net.Conn
		for range clients * copies {
			select {
			case c := <-backend.arrived:
				asked = append(asked, c)
			case <-time.After(20 * time.Second):
				t.Fatalf("round %d: %d of %d requests reached the backend", round, len(asked), clients*copies)
			}
		}
		hold()
		for _, c := range asked {
			if _, err := c.Write(fixedResponse); err != nil {
				t.Fatal(err)
			}
		}
		h.over <- struct{}{}
		for _, c := range conns {
			if answer == nil { // all are alike
				for n := 0; ; {
					k, err := c.Read(first[n:])
					if err != nil {
						t.Fatal(err)
					}
					n += k
					if i := bytes.Index(first[:n], []byte("\r\n\r\n")); i >= 0 && n == i+4+1024 {
						answer = make([]byte, n)
						break
					}
				}
				continue
			}
			if _, err := io.ReadFull(c, answer); err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 ")) {
				t.Fatalf("%.100q %v", answer, err)
			}
		}
		hold() // the turn that sent the last answer is over
		h.over <- struct{}{}
	}
	hold()
	calls := float64(p.Stats().Loops[0].Syscalls-before) / (clients * rounds)
	h.over <- struct{}{}
	t.Logf("%.3f system calls a request", calls)
	// Two with the client, two with each backend, and their share of the waits.
	if most := 2.1 * float64(1+copies); calls > most {
		t.Errorf("%.3f system calls a request, want at most %.1f", calls, most)
	}
}
