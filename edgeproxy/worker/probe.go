package worker

import (
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// LoadPath is answered by every east-west listener itself: 204 with a
// meridian-load field for each service that this site shares.
const LoadPath = "/.well-known/meridian/load"

// maxLoads bounds the fields of an answer to a probe, below the number of fields
// that codecs take. Past it a probe learns of some services, by chance; requests
// bring the reports of those that are used.
const maxLoads = 80

// replyLoads answers a probe.
func (w *Worker) replyLoads(r *request) {
	w.load = w.load[:0]
	w.loadEnds = w.loadEnds[:0]
	for _, s := range w.state.View.Services {
		if s.Report == nil || len(w.loadEnds) == maxLoads {
			continue
		}
		before := len(w.load)
		w.load = s.Report.AppendLoad(w.load, r.from, s.Busy())
		if len(w.load) > before {
			w.loadEnds = append(w.loadEnds, len(w.load))
		}
	}
	fields, from := w.fields[:0], 0
	for _, end := range w.loadEnds {
		fields = append(fields, stream.Field{Name: fieldLoad, Value: w.load[from:end]})
		from = end
	}
	w.fields = fields[:0]
	w.msg = stream.Message{Status: 204, NoBody: true, Fields: fields}
	w.out = stream.Event{Kind: stream.Head, Stream: r.stream, Head: &w.msg}
	if r.d.send(&w.out, roomFor(&w.msg)) {
		w.out = stream.Event{Kind: stream.End, Stream: r.stream}
		r.d.send(&w.out, framing)
	}
}
