package controller

import "context"

// Alive returns nil when the loop that decides for the site takes its turn before ctx
// ends. It may be called at any time.
func (s *Server) Alive(ctx context.Context) error { return s.do(ctx, func() {}) }
