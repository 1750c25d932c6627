package agent

import "context"

// Alive returns nil when the agent's loop takes its turn before ctx ends. It may be
// called at any time.
func (a *Agent) Alive(ctx context.Context) error {
	select {
	case a.turns <- struct{}{}:
		return nil
	case <-a.ended:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}
