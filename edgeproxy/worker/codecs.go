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

// codecs is a protocol: how to make the codecs of both sides, and whether a
// connection carries one stream at a time. Where it does, not reading a
// connection is what holds its sender back.
type codecs struct {
	server func() codec
	client func() codec
	serial bool
	id     uint8 // in pool keys
}

var http1Codecs = codecs{
	server: func() codec { return http1.NewServer(http1.DefaultLimits) },
	client: func() codec { return http1.NewClient(http1.DefaultLimits) },
	serial: true,
	id:     1,
}
