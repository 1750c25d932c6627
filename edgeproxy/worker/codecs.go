package worker

import (
	"github.com/meridian-mesh/meridian/edgeproxy/http1"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// codec is a protocol codec that can be used again for another connection.
type codec interface {
	stream.Codec
	Reset()
}

// serverCodec is a client connection's codec.
type serverCodec interface {
	codec
	// Refuse gives up on a request whose head has not come whole and returns the
	// stream to answer on, false when there is none.
	Refuse() (stream.ID, bool)
}

// codecs is a protocol: how to make the codecs of both sides, and whether a
// connection carries one stream at a time. Where it does, not reading a
// connection is what holds its sender back.
type codecs struct {
	server func() serverCodec
	client func() codec
	serial bool
	id     uint8 // in pool keys
}

var http1Codecs = codecs{
	server: func() serverCodec { return http1.NewServer(http1.DefaultLimits) },
	client: func() codec { return http1.NewClient(http1.DefaultLimits) },
	serial: true,
	id:     1,
}

func (w *Worker) takeCodec() serverCodec {
	n := len(w.restCodecs)
	if n == 0 {
		w.Loop.Spend(codecBytes)
		return w.codecs.server()
	}
	c := w.restCodecs[n-1]
	w.restCodecs = w.restCodecs[:n-1]
	return c
}

func (w *Worker) giveCodec(c serverCodec) {
	c.Reset()
	w.restCodecs = append(w.restCodecs, c)
}
