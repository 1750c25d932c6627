package worker

import (
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/http2"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// What goes between sites is on the way for as long as the sites are apart, and a stream
// carries a window in each round trip at most. So the window of one grows there while its
// bytes are passed on as fast as they come.

const (
	// mostWindow bounds what a stream comes to: 50 MB/s at a round trip of 20 ms.
	mostWindow = 1 << 20
	// growSpell is how long a whole window may take to be passed on, for the next to be
	// twice as wide: longer than a round trip around the earth. What is slower than that
	// is not held up by its window.
	growSpell = 400 * time.Millisecond
	// mostWider bounds by how much all streams of a loop are wider than at first, as
	// does a part of the memory that the loop has left.
	mostWider  = 32 << 20
	widerShare = 4
)

// intake is what an end of a stream between sites has been given of its body.
type intake struct {
	wider int   // by how much its window has grown
	taken int   // bytes that were passed on
	since int64 // ... from then on
}

// widener is a codec whose windows grow; see [http2.Codec.Widen].
type widener interface {
	Widen(id stream.ID, n int)
}

// taken notes that n bytes of a stream between sites were passed on, and gives the stream a
// wider window where that is what they waited for and there is memory to spare.
func (w *Worker) taken(in *intake, mux muxCodec, id stream.ID, n int) {
	now := w.Loop.Now()
	if now-in.since > int64(growSpell) {
		in.taken, in.since = 0, now
	}
	window := http2.DefaultLimits.Window + in.wider
	if in.taken += n; in.taken < window {
		return
	}
	in.taken, in.since = 0, now
	more := min(window, mostWindow-window)
	if more <= 0 || Pressure(w.shared.Memory.pressure.Load()) != Relaxed || w.wider+more > min(mostWider, w.Loop.Left()/widerShare) {
		return
	}
	if k, ok := mux.(widener); ok {
		k.Widen(id, more)
		in.wider += more
		w.wider += more
	}
}

// narrow is for a stream that is over.
func (w *Worker) narrow(in *intake) {
	w.wider -= in.wider
	*in = intake{}
}

var _ widener = (*http2.Codec)(nil)
