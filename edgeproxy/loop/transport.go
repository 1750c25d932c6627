package loop

import "io"

// Transport turns a socket's bytes into plaintext and back, below the codec.
// What arrives goes through Feed; what is to be sent goes through Send and is
// taken from Wire. A transport may have bytes of its own to send at any time
// (a key update, an alert): the connection looks at Wire after every Feed.
type Transport interface {
	// Feed takes bytes read from the socket and returns the plaintext in them,
	// borrowed until the next Feed of any connection of the loop; it may be a part
	// of in. An error is the transport's end, after that plaintext: nothing is fed
	// any more, and End says what it was.
	Feed(in []byte) ([]byte, error)
	// Send takes plaintext from the front of l, as much as it accepts now.
	Send(l *List) error
	// Wire is the queue of bytes for the socket.
	Wire() *List
	// End is what it means that nothing more comes from the socket: io.EOF where
	// the other side has said that it is done, else why not.
	End() error
	// Finish queues what tells the other side that nothing more is sent.
	Finish()
	// Release follows the connection's Close: whatever works for it must stop.
	Release()
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

// End is io.EOF: a socket's end is all that the other side can say.
func (r *Raw) End() error { return io.EOF }

// Finish has nothing to add to the socket's own end.
func (r *Raw) Finish() {}

// Release has nothing to stop.
func (r *Raw) Release() {}

var _ Transport = (*Raw)(nil)
