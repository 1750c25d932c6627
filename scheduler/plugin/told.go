package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/meridian-mesh/meridian/internal/bus"
	"github.com/meridian-mesh/meridian/scheduler/args"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

// maxTold is how many reports may wait until the next look: those of 1,000 sites.
const maxTold = 1024

// subscribe follows what the mesh's controllers tell, until ctx ends. A server that is
// not there yet is no error: it is tried until it is.
func (s *source) subscribe(ctx context.Context, n *args.NATS) error {
	conn, err := bus.Connect(bus.Options{
		URL: n.URL, Name: "meridian-scheduler", TokenFile: n.TokenFile, NKeyFile: n.NKeyFile, CAFile: n.CAFile, Log: s.log,
	})
	if err != nil {
		return fmt.Errorf("TrafficAffinity args: nats: %w", err)
	}
	context.AfterFunc(ctx, conn.Close)
	s.told, err = conn.Traffic(ctx, maxTold)
	return err
}

// listen takes in what came since the last look. What a site told longer ago than
// maxAge is not used; where no site tells any more, the last reading stays, to grow old.
func (s *source) listen(r *reading) error {
	var faults []error
	news := false
	for more := true; more; {
		select {
		case t := <-s.told:
			if err := s.board.Hear(t.At, t.Value); err != nil {
				faults = append(faults, err)
				continue
			}
			news = true
			if t.At.After(r.at) {
				r.at = t.At
			}
		default:
			more = false
		}
	}
	if !news {
		return errors.Join(faults...)
	}
	s.board.Forget(time.Now(), s.args.MaxAge.Duration)
	said := s.board.Said()
	r.index = s.prepare(traffic.Sum(said))
	if s.args.DelaysFile == "" {
		r.sites = traffic.Between(said)
	}
	return errors.Join(faults...)
}
