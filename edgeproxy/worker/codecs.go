package worker

import (
	"github.com/meridian-mesh/meridian/edgeproxy/http1"
	"github.com/meridian-mesh/meridian/edgeproxy/http2"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// codec is a protocol codec that can be used again for another connection.
type codec interface {
	stream.Codec
	Reset()
}

// muxCodec carries many streams on a connection, each with a window of its own. One
// without these carries one at a time: there not reading is what holds a sender
// back.
type muxCodec interface {
	codec
	// Say appends what the codec has to send on its own account; Silent reports that
	// it is nothing.
	Say(dst []byte) []byte
	Silent() bool
	// Sendable is how many bytes of Data Encode takes on a stream now. A decoded
	// Window event says that it may have grown, for all streams when it names none.
	Sendable(id stream.ID) int
	// Extended reports whether the peer takes requests for a tunnel to a protocol, and
	// whether that is known yet.
	Extended() (takes, known bool)
}

// serverCodec is a client connection's codec.
type serverCodec interface {
	codec
	// Refuse gives up on a request whose head has not come whole and returns the
	// stream to answer on, false when there is none.
	Refuse() (stream.ID, bool)
}

// protocol is a way to speak on connections.
type protocol struct {
	server func() serverCodec
	client func() codec
	name   string // in the access log
	id     uint8  // in pool keys, and where spare codecs are kept
	bytes  bool   // whole connections: there is nothing to read of what they carry
	many   bool   // streams at a time; the codecs are a muxCodec
}

// protocols are those of a worker. A client says which it speaks by its first
// octets, a service by its port.
type protocols struct{ serial, mux, plain *protocol }

const protocolCount = 3

// newProtocols makes a loop's protocols. The codecs of HTTP/2, which cannot be shared
// among connections at rest, share the memory that heads are decoded into.
func newProtocols() protocols {
	limits := http2.DefaultLimits
	limits.Extended = true
	two := http2.NewScratch(limits)
	return protocols{
		serial: &protocol{
			server: func() serverCodec { return http1.NewServer(http1.DefaultLimits) },
			client: func() codec { return http1.NewClient(http1.DefaultLimits) },
			name:   "HTTP/1.1", id: 0,
		},
		mux: &protocol{
			server: func() serverCodec { return two.NewServer() },
			client: func() codec { return two.NewClient() },
			name:   "HTTP/2", id: 1, many: true,
		},
		plain: &protocol{
			server: func() serverCodec { return new(plain) },
			client: func() codec { return new(plain) },
			name:   protocolTCP, id: 2, bytes: true,
		},
	}
}

// of returns the protocol of connections with many streams, or with one.
func (p *protocols) of(many bool) *protocol {
	if many {
		return p.mux
	}
	return p.serial
}

// spoken tells the protocol that a connection's first octets speak, nil when more
// of them are needed.
func (p *protocols) spoken(in []byte) *protocol {
	n := min(len(in), len(http2.Preface))
	switch {
	case string(in[:n]) != http2.Preface[:n]:
		return p.serial
	case n < len(http2.Preface):
		return nil
	}
	return p.mux
}

// trusts lets another node of the mesh have open what its streams need: it hands on
// the requests of many clients, and has bounded each of them.
func (d *down) trusts() {
	if c, ok := d.codec.(interface{ Trust() }); ok {
		if p := d.peer(); p != nil && p.Mesh.Node() {
			c.Trust()
		}
	}
}

func (w *Worker) takeCodec(p *protocol) serverCodec {
	rest := w.restCodecs[p.id]
	n := len(rest)
	if n == 0 {
		return p.server()
	}
	w.restCodecs[p.id] = rest[:n-1]
	return rest[n-1]
}

func (w *Worker) giveCodec(p *protocol, c serverCodec) {
	c.Reset()
	w.restCodecs[p.id] = append(w.restCodecs[p.id], c)
}
