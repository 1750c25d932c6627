package tlsio

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/loop"
)

const (
	// ahead is how much may be encrypted before the socket takes it.
	ahead = 16 << 10
	// plainBytes is more than one read and what is kept of a record before it can
	// decrypt to.
	plainBytes = 80 << 10
	// mailboxBytes is what a handshake may leave unread before the socket is no
	// longer read; less than what one read adds fits beside it into a loop's buffer.
	mailboxBytes = 24 << 10
	// SessionBytes is about what an established session keeps on the heap, without
	// the record that it reads at the moment.
	SessionBytes = 10 << 10
)

// Owner is told when a connection's handshake is over. It runs on the loop.
type Owner interface {
	// Secured says that plaintext may flow, or why there is no session; the owner
	// closes the connection then, which sends the alert that says so.
	Secured(err error)
}

// Room is what the connections of one loop share.
type Room struct {
	Loop  *loop.Loop
	plain []byte
}

// Conn is TLS on a connection of a loop. But for the goroutine of its handshake
// only the loop may use it.
type Conn struct {
	tls   *tls.Conn // made by the goroutine of the handshake
	room  *Room
	conn  *loop.Conn
	owner Owner
	hs    *handshake // nil when it is over
	wire  loop.List
	in    []byte // at hand, while the session reads
	err   error  // why nothing more is read

	failed   bool // the handshake brought no session
	version  uint16
	protocol string // ALPN
	name     string // SNI
	peer     *Peer  // nil where it showed no certificate, or this side is the client
}

// NewServer makes the server side of a connection that was accepted: it begins with
// the client's hello.
func NewServer(room *Room, conn *loop.Conn, owner Owner, s *Server, h *Handshakes) *Conn {
	c := &Conn{room: room, conn: conn, owner: owner}
	c.hs = newHandshake(c, h, ServerSide)
	c.hs.server = s
	return c
}

// NewClient makes the client side of a connection that was dialled; call
// [Conn.Start] when the connection's transport is this.
func NewClient(room *Room, conn *loop.Conn, owner Owner, cl *Client, h *Handshakes) *Conn {
	c := &Conn{room: room, conn: conn, owner: owner}
	c.hs = newHandshake(c, h, ClientSide)
	c.hs.client = cl
	return c
}

// Start begins a client's handshake. An error says that there are too many.
func (c *Conn) Start() error { return c.hs.start() }

// Protocol is the application protocol that was agreed on, empty without one.
func (c *Conn) Protocol() string { return c.protocol }

// Version is that of the session, as crypto/tls numbers them; 0 before.
func (c *Conn) Version() uint16 { return c.version }

// ServerName is the name that the client asked for.
func (c *Conn) ServerName() string { return c.name }

// Peer is who a client is by its certificate, nil where it showed none.
func (c *Conn) Peer() *Peer { return c.peer }

// Identity is what the other side's certificate, which was believed, says of it: its
// first URI (a SPIFFE ID), else its first DNS name, else its subject's common name.
// It is empty without a certificate.
func (c *Conn) Identity() []byte {
	if c.peer == nil {
		return nil
	}
	return c.peer.name
}

// Begun reports whether a handshake is under way: the first bytes of a client that
// says nothing do not begin one.
func (c *Conn) Begun() bool { return c.hs != nil && c.hs.begun }

// Ended tells a handshake that nothing more comes from the socket, and reports whether
// there is one that will say what it made of what came: Secured follows.
func (c *Conn) Ended() bool {
	if !c.Begun() {
		return false
	}
	c.hs.end()
	return true
}

// Heard reports whether anything came from the other side.
func (c *Conn) Heard() bool { return c.hs == nil || c.hs.heard }

// Feed decrypts, or hands on what belongs to the handshake.
func (c *Conn) Feed(in []byte) ([]byte, error) {
	if c.hs != nil {
		if err := c.hs.take(in); err != nil {
			c.err = err
		}
		return nil, c.err
	}
	if c.failed {
		return nil, nil // what comes until the other side has heard of it
	}
	if c.err != nil {
		return nil, c.err
	}
	if c.room.plain == nil {
		c.room.plain = make([]byte, plainBytes)
	}
	c.in = in
	n := 0
	for c.err == nil {
		if n == plainBytes {
			c.err = errTooMuch
			break
		}
		k, err := c.tls.Read(c.room.plain[n:])
		n += k
		if err != nil {
			if errors.Is(err, errDrained) {
				break
			}
			c.err = err
		}
	}
	c.in = nil
	return c.room.plain[:n], c.err
}

// Send encrypts from the front of l what the queue for the socket has room for.
func (c *Conn) Send(l *loop.List) error {
	if c.hs != nil || c.failed {
		return nil
	}
	for l.Len() > 0 && c.wire.Len() < ahead {
		n, err := c.tls.Write(l.Front())
		if err != nil {
			return err
		}
		l.Drop(&c.room.Loop.Slabs, n)
	}
	return nil
}

// Wire is the queue for the socket.
func (c *Conn) Wire() *loop.List { return &c.wire }

// End is io.EOF where the other side said that it is done, else why nothing more
// is read: an end of the socket alone may be anybody's doing.
func (c *Conn) End() error {
	if c.failed {
		return io.EOF
	}
	if c.err == nil {
		c.err = io.ErrUnexpectedEOF
	}
	return c.err
}

// Finish queues the alert close_notify.
func (c *Conn) Finish() {
	if c.hs == nil && !c.failed {
		// Fails where the session has failed, of which the other side was told.
		_ = c.tls.CloseWrite()
	}
}

// Release ends a handshake that is under way.
func (c *Conn) Release() {
	if c.hs != nil {
		c.hs.abort()
		c.hs = nil
	}
	c.conn, c.owner = nil, nil
	c.err = net.ErrClosed
}

var _ loop.Transport = (*Conn)(nil)

// finished takes the result of the handshake over to the loop.
func (c *Conn) finished(left []byte, err error) {
	h := c.hs
	c.hs = nil
	if err != nil {
		c.failed = true
		if h.paused {
			c.conn.Resume()
		}
		c.owner.Secured(err)
		return
	}
	s := c.tls.ConnectionState()
	c.protocol, c.version, c.name = s.NegotiatedProtocol, s.Version, s.ServerName
	c.peer = h.peer
	conn := c.conn
	c.owner.Secured(nil)
	if c.conn == nil {
		return // it was closed
	}
	if h.paused {
		conn.Resume()
	}
	conn.Arrived(left)
}

// errTooMuch cannot happen while a loop's reads are bounded as it says.
var errTooMuch = errors.New("tls: more plaintext than one read can hold")

// drained says that there are no bytes at hand; more may come.
type drained struct{}

var errDrained error = drained{}

func (drained) Error() string   { return "no bytes at hand" }
func (drained) Timeout() bool   { return true }
func (drained) Temporary() bool { return true }

// session is a Conn as the socket that crypto/tls sees.
type session struct {
	c  *Conn
	hs *handshake // nil when it is over
}

// Read takes of what the loop has read; in a handshake it waits for that.
func (s *session) Read(p []byte) (int, error) {
	if s.hs != nil {
		return s.hs.read(p)
	}
	c := s.c
	if len(c.in) == 0 {
		return 0, errDrained
	}
	n := copy(p, c.in)
	c.in = c.in[n:]
	return n, nil
}

// Write queues for the socket.
func (s *session) Write(p []byte) (int, error) {
	if s.hs != nil {
		return s.hs.write(p)
	}
	s.c.wire.Append(&s.c.room.Loop.Slabs, p)
	return len(p), nil
}

// Close does nothing: the connection is its owner's.
func (s *session) Close() error { return nil }

// LocalAddr is of no concern to a session, and so are the other address and the
// deadlines, which the loop keeps.
func (s *session) LocalAddr() net.Addr { return nowhere{} }

// RemoteAddr is as LocalAddr.
func (s *session) RemoteAddr() net.Addr { return nowhere{} }

// SetDeadline does nothing.
func (s *session) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (s *session) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (s *session) SetWriteDeadline(time.Time) error { return nil }

type nowhere struct{}

func (nowhere) Network() string { return "tcp" }
func (nowhere) String() string  { return "" }

var _ net.Conn = (*session)(nil)
