package loop

// Transport turns a socket's bytes into plaintext and back, below the codec.
// What arrives goes through Feed; what is to be sent goes through Send and is
// taken from Wire. A transport may have bytes of its own to send at any time
// (a key update, an alert): the connection looks at Wire after every Feed.
type Transport interface {
	// Feed takes bytes read from the socket and returns the plaintext in them,
	// borrowed until the next Feed; it may be a part of in.
	Feed(in []byte) ([]byte, error)
	// Send takes plaintext from the front of l, as much as it accepts now.
	Send(l *List) error
	// Wire is the queue of bytes for the socket.
	Wire() *List
}

// Raw is the transport without encryption.
type Raw struct{ wire List }

// Feed returns in.
func (r *Raw) Feed(in []byte) ([]byte, error) { return in, nil }

// Send takes all of l.
func (r *Raw) Send(l *List) error {
	r.wire.Move(l)
	return nil
}

// Wire is what Send took.
func (r *Raw) Wire() *List { return &r.wire }

var _ Transport = (*Raw)(nil)
