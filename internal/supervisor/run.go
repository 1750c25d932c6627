package supervisor

import (
	"context"
	"errors"
	"log/slog"
)

// Run is run, with the supervisor told: [Ready] once ready is closed, then that the
// process is alive for as long as alive returns nil, then [Stopping] when ctx ends or
// run returns. It returns run's error.
func Run(ctx context.Context, log *slog.Logger, ready <-chan struct{}, alive, run func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	told := make(chan error, 1)
	go func() {
		select {
		case <-ready:
		case <-ctx.Done():
			told <- nil
			return
		}
		Tell(log, Ready)
		err := FeedWatchdog(ctx, log, alive)
		if err != nil {
			stop()
		}
		<-ctx.Done()
		Tell(log, Stopping)
		told <- err
	}()
	err := run(ctx)
	stop()
	return errors.Join(err, <-told)
}
