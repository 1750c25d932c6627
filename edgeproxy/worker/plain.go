package worker

import (
	"errors"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// plain is the codec of connections that carry bytes and nothing else, either side's:
// one stream, a tunnel from its start. There are no heads on the wire; who begins the
// stream tells them.
type plain struct{ opened, ended bool }

// onlyStream is the number of the stream.
const onlyStream stream.ID = 1

var errNoReset = errors.New("worker: a connection of bytes has no word for a reset")

// Decode implements [stream.Codec]: all that comes is Data.
func (c *plain) Decode(in []byte, ev *stream.Event) (int, error) {
	*ev = stream.Event{}
	if len(in) > 0 {
		*ev = stream.Event{Kind: stream.Data, Stream: onlyStream, Data: in}
	}
	return len(in), nil
}

// EOF implements [stream.Codec]: an end of the connection is one of its direction.
func (c *plain) EOF(ev *stream.Event) error {
	*ev = stream.Event{}
	if !c.ended {
		c.ended = true
		*ev = stream.Event{Kind: stream.End, Stream: onlyStream}
	}
	return nil
}

// Encode implements [stream.Codec].
func (c *plain) Encode(dst []byte, ev *stream.Event) ([]byte, error) {
	switch ev.Kind {
	case stream.Data:
		return append(dst, ev.Data...), nil
	case stream.Reset:
		return dst, errNoReset
	}
	return dst, nil
}

// Open implements [stream.Codec].
func (c *plain) Open() (stream.ID, bool) {
	first := !c.opened
	c.opened = true
	return onlyStream, first
}

// Active implements [stream.Codec]; an end of both directions closes the connection.
func (c *plain) Active() int { return 1 }

// Reusable implements [stream.Codec]: there is no other stream.
func (c *plain) Reusable() bool { return false }

// Close implements [stream.Codec]: there is nothing to say.
func (c *plain) Close(dst []byte) []byte { return dst }

// Reset makes the codec as good as new.
func (c *plain) Reset() { *c = plain{} }

// Refuse is false: nothing can be answered.
func (c *plain) Refuse() (stream.ID, bool) { return 0, false }

var _ serverCodec = (*plain)(nil)
