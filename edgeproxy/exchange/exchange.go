// Package exchange is one request's life as a state machine: the client's stream
// on one side, one or more attempts at an answer on the other. It is pure:
// [Exchange.Step] takes an event and appends actions; it does no I/O, knows no
// time and no protocol, and allocates nothing. The caller carries out the actions
// in order, and feeds back what comes of them.
//
// Bytes never pass through: events and actions speak of lengths and of offsets
// into a body, whose pieces the caller has at hand (the piece of the event being
// handled) or was told to keep. A body's sender gets credit as its receiver takes
// bytes, so a slow receiver bounds what is kept: that is HTTP/2's flow control,
// and for HTTP/1 the caller stops reading a sender that has used up its credit.
//
// Anything that takes time (finding a target, connecting, a function's verdict)
// suspends one attempt: it is named by a [Ref] that is never used again, so an
// answer that comes too late names nothing and is ignored.
package exchange

// MaxAttempts bounds the attempts of an exchange that are alive at one time.
const MaxAttempts = 3

// EventKind says what happened.
type EventKind uint8

// Events. Those of an attempt carry its Ref; the others come from the client's
// stream or from the clock.
const (
	// Request: the head is there. Without More it is the whole request.
	Request EventKind = iota + 1
	// RequestData: N more bytes of the request's body.
	RequestData
	// RequestEnd: the request is complete.
	RequestEnd
	// ClientGone: the client's stream or connection ended early.
	ClientGone
	// ClientCredit: the client took N more bytes of response body.
	ClientCredit
	// Stop: the exchange must end, for Flag; Status overrides the flag's.
	Stop

	// Ready: the attempt has a stream, with N bytes of credit. Reused says its
	// connection has served before.
	Ready
	// NoTarget: there is nowhere to send it; Flag says why. Status overrides the
	// flag's.
	NoTarget
	// Failed: the attempt ended without (the whole of) an answer; Flag says how.
	Failed
	// Informational: a 1xx head.
	Informational
	// Response: the final head, with Status.
	Response
	// ResponseData: N more bytes of the response's body.
	ResponseData
	// ResponseEnd: the response is complete.
	ResponseEnd
	// BackendCredit: the attempt's receiver took N more bytes.
	BackendCredit
	// AttemptTimeout: this attempt has taken too long.
	AttemptTimeout
)

// Ref names one attempt. The zero Ref names none.
type Ref struct {
	Slot uint8
	Gen  uint32
}

// Event is one input of [Exchange.Step].
type Event struct {
	Kind   EventKind
	Ref    Ref
	Flag   Flag
	More   bool // Request
	Reused bool // Ready
	// Holds, of Ready: what is sent may wait for a window, and so a tunnel's end for credit.
	Holds bool
	// Switch, of Response: the head turns the stream into a tunnel: both directions carry
	// Data until each is ended on its own. A request that came without More goes on.
	Switch bool
	// Unsent, of Failed: the peer certainly has not processed the request.
	Unsent bool
	// Retry, of Response: the head is not wanted where another attempt is allowed;
	// see [Exchange.MayRetry].
	Retry  bool
	Status int
	N      int
}

// ActionKind says what to do.
type ActionKind uint8

// Actions.
const (
	// Start: find a target for the attempt and a stream to it; answer Ready,
	// NoTarget or Failed, now or later. Fresh asks for the same target again over
	// a new connection.
	Start ActionKind = iota + 1
	// SendHead: send the request's head.
	SendHead
	// SendData: send N bytes of the request's body from offset From.
	SendData
	// SendEnd: the request is complete: send its trailers, if any, and its end.
	SendEnd
	// Keep: copy N bytes from offset From of the piece at hand.
	Keep
	// Forget: what was kept before offset From is not needed any more.
	Forget
	// CreditClient: N bytes of the request's body were passed on.
	CreditClient
	// Release: the attempt is over, with OK an answer; its stream is reset unless
	// both directions ended.
	Release

	// ReplyInformational: pass the 1xx head on.
	ReplyInformational
	// ReplyHead: pass the response's head on.
	ReplyHead
	// ReplyData: pass N bytes of its body on, from offset From.
	ReplyData
	// ReplyEnd: pass its trailers, if any, and its end on.
	ReplyEnd
	// KeepReply, ForgetReply: as Keep and Forget, of the response's body.
	KeepReply
	ForgetReply
	// CreditBackend: N bytes of the response's body were passed on.
	CreditBackend
	// Local: answer with Status and an own body that says Flag.
	Local
	// Abort: reset the client's stream, its response cannot be completed.
	Abort
	// Finish: the exchange is over, with Status sent (0: none) and Flag. Always
	// the last action.
	Finish
)

// Action is one output of [Exchange.Step].
type Action struct {
	Kind   ActionKind
	Ref    Ref
	Flag   Flag
	OK     bool // Release
	Fresh  bool // Start
	Retry  bool // Start: not the first attempt
	Burden bool // Start: a retry that a budget has to pay for; else answer NoTarget
	Status int
	N      int
	From   int64
}

type attemptState uint8

const (
	free attemptState = iota
	starting
	sending // it has a stream
)

type attempt struct {
	state    attemptState
	ref      Ref
	reused   bool
	fresh    bool
	answered bool // a byte of an answer came
	ended    bool // SendEnd was said
	holds    bool
	sent     int64
	credit   int64
	granted  int64 // credit at the start
}

// body is one direction's progress, in offsets from the body's start.
type body struct {
	kept     int64 // kept bytes begin here
	end      int64 // received
	credited int64 // passed on, as told to the sender
	done     bool
}

// Exchange is one request's state. The zero value waits for a Request event;
// after Finish it waits for the next one.
type Exchange struct {
	cfg      Config
	active   bool
	gen      uint32
	attempts [MaxAttempts]attempt
	winner   int8 // slot of the attempt whose answer is passed on, -1 before
	retries  int
	failure  Flag
	status   int
	tunnel   bool
	early    bool // the client ended its direction of a tunnel before there was one
	open     bool // the request's head was not all of it
	replied  bool // ReplyEnd was said

	req    body
	replay bool // the body is kept from its start, for another attempt
	resp   body
	sent   int64 // of resp, to the client
	credit int64 // the client's
}

// Begin sets what the next exchange is allowed. Call it before its Request event.
func (x *Exchange) Begin(cfg Config) {
	*x = Exchange{cfg: cfg, gen: x.gen, winner: -1, credit: int64(cfg.ClientCredit)}
}

// Allow changes what the exchange is allowed, while its first attempt is not sent: of
// MaxReplay, ClientCredit and Tunnel the old ones stay.
func (x *Exchange) Allow(cfg Config) {
	cfg.MaxReplay, cfg.ClientCredit, cfg.Tunnel = x.cfg.MaxReplay, x.cfg.ClientCredit, x.cfg.Tunnel
	x.cfg = cfg
}

// Active reports whether an exchange has begun and not finished.
func (x *Exchange) Active() bool { return x.active }

// RequestDone reports whether the whole request was received.
func (x *Exchange) RequestDone() bool { return x.req.done }

// Tunnel reports whether the streams carry a tunnel.
func (x *Exchange) Tunnel() bool { return x.tunnel }

// Committed reports whether the client has got a final head.
func (x *Exchange) Committed() bool { return x.winner >= 0 }

// Retries is how many of the attempts were new ones that [Config] bounds.
func (x *Exchange) Retries() int { return x.retries }

// MayRetry reports whether the response of an attempt, of which no more than the
// head came, may be dropped for another attempt.
func (x *Exchange) MayRetry(r Ref) bool {
	a := x.find(r)
	if a == nil || x.winner >= 0 || x.retries >= x.cfg.Retries || !x.cfg.Idempotent || x.req.kept > 0 {
		return false
	}
	for i := range x.attempts {
		if b := &x.attempts[i]; b != a && b.state != free {
			return false
		}
	}
	return true
}

// Alive reports whether the reference names an attempt that is not over.
func (x *Exchange) Alive(r Ref) bool { return x.find(r) != nil }

func (x *Exchange) find(r Ref) *attempt {
	if int(r.Slot) >= MaxAttempts || r.Gen == 0 {
		return nil
	}
	if a := &x.attempts[r.Slot]; a.state != free && a.ref == r {
		return a
	}
	return nil
}

// Step handles one event and appends the actions that follow to out. Events that
// nothing waits for any more are ignored.
func (x *Exchange) Step(ev *Event, out []Action) []Action {
	if ev.Kind == Request {
		if x.active {
			return out
		}
		x.active = true
		more := ev.More && !x.cfg.Tunnel
		x.replay, x.open, x.req.done = more, more, !more
		return x.start(false, false, out)
	}
	if !x.active {
		return out
	}
	if ev.Kind < Ready {
		return x.client(ev, out)
	}
	if a := x.find(ev.Ref); a != nil {
		return x.backend(a, ev, out)
	}
	return out
}

func (x *Exchange) client(ev *Event, out []Action) []Action {
	switch ev.Kind {
	case RequestData:
		return x.requestData(ev.N, out)
	case RequestEnd:
		x.early = x.cfg.Tunnel && !x.tunnel
		x.req.done = true
		for i := range x.attempts {
			out = x.pump(&x.attempts[i], out)
		}
		if x.tunnel {
			return x.closed(out)
		}
	case ClientCredit:
		x.credit += int64(ev.N)
		return x.pumpReply(0, out)
	case ClientGone:
		out = x.releaseAll(out)
		return x.finish(x.status, ClientDisconnected, out)
	case Stop:
		return x.giveUp(ev.Flag, ev.Status, out)
	}
	return out
}

func (x *Exchange) backend(a *attempt, ev *Event, out []Action) []Action {
	switch ev.Kind {
	case Ready:
		if a.state != starting {
			return out
		}
		a.state, a.reused, a.holds, a.credit, a.granted = sending, ev.Reused, ev.Holds, int64(ev.N), int64(ev.N)
		out = append(out, Action{Kind: SendHead, Ref: a.ref})
		out = x.pump(a, out)
		return x.tidy(0, out)
	case BackendCredit:
		a.credit += int64(ev.N)
		out = x.pump(a, out)
		out = x.tidy(0, out)
		if x.tunnel {
			return x.closed(out)
		}
		return out
	case NoTarget:
		out = x.release(a, false, out)
		if x.alive() {
			return out
		}
		if x.failure == OK {
			x.failure = ev.Flag
		}
		return x.giveUp(x.failure, ev.Status, out)
	case Failed:
		return x.failed(a, ev, out)
	case AttemptTimeout:
		return x.failed(a, &Event{Flag: UpstreamTimeout}, out)
	case Informational:
		a.answered = true
		if x.winner < 0 {
			out = append(out, Action{Kind: ReplyInformational, Ref: a.ref})
		}
	case Response:
		if x.winner >= 0 {
			return out
		}
		if ev.Retry && !ev.Switch && x.MayRetry(a.ref) {
			x.failure = NoHealthy // what is left to say where there is no other target
			x.retries++
			return x.start(false, false, x.release(a, false, out))
		}
		a.answered = true
		x.winner, x.status, x.replay = int8(a.ref.Slot), ev.Status, false
		for i := range x.attempts {
			if b := &x.attempts[i]; b != a && b.state != free {
				out = x.release(b, false, out)
			}
		}
		if x.tunnel = ev.Switch; ev.Switch && !x.open {
			x.req.done, a.ended = x.early, false
		}
		out = append(out, Action{Kind: ReplyHead, Ref: a.ref, Status: ev.Status})
		if x.tunnel {
			out = x.pump(a, out)
		}
		return x.tidy(0, out)
	case ResponseData:
		x.resp.end += int64(ev.N)
		return x.pumpReply(int64(ev.N), out)
	case ResponseEnd:
		x.resp.done = true
		if !x.tunnel {
			out = x.release(a, true, out)
		}
		return x.pumpReply(0, out)
	}
	return out
}

func (x *Exchange) start(fresh, burden bool, out []Action) []Action {
	for i := range x.attempts {
		a := &x.attempts[i]
		if a.state == free {
			x.gen++
			*a = attempt{state: starting, ref: Ref{uint8(i), x.gen}, fresh: fresh}
			return append(out, Action{Kind: Start, Ref: a.ref, Fresh: fresh, Retry: x.failure != OK, Burden: burden})
		}
	}
	return out
}

func (x *Exchange) requestData(n int, out []Action) []Action {
	x.req.end += int64(n)
	for i := range x.attempts {
		out = x.pump(&x.attempts[i], out)
	}
	if x.req.end > int64(x.cfg.MaxReplay) {
		x.replay = false
	}
	return x.tidy(int64(n), out)
}

// pump sends an attempt what it can take of what was received.
func (x *Exchange) pump(a *attempt, out []Action) []Action {
	if a.state != sending || a.ended {
		return out
	}
	if x.cfg.Tunnel && !x.tunnel {
		a.ended = true // there is no more of the request
		return append(out, Action{Kind: SendEnd, Ref: a.ref})
	}
	if n := min(x.req.end-a.sent, a.credit); n > 0 {
		out = append(out, Action{Kind: SendData, Ref: a.ref, From: a.sent, N: int(n)})
		a.sent += n
		a.credit -= n
	}
	if x.req.done && a.sent == x.req.end {
		a.ended = true
		out = append(out, Action{Kind: SendEnd, Ref: a.ref})
	}
	return out
}

// tidy keeps of the piece at hand (the last n bytes received) what is not sent or
// may be wanted again, forgets what is neither, and gives the client credit.
func (x *Exchange) tidy(n int64, out []Action) []Action {
	if x.req.end == 0 {
		return out
	}
	passed := x.req.end
	if x.winner < 0 || x.attempts[x.winner].state != free {
		passed = x.passed()
	}
	need := passed
	if x.replay {
		need = 0
	}
	if need > x.req.kept {
		if x.req.kept < x.req.end-n {
			out = append(out, Action{Kind: Forget, From: need})
		}
		x.req.kept = need
	}
	if from := max(need, x.req.end-n); from < x.req.end {
		out = append(out, Action{Kind: Keep, From: from, N: int(x.req.end - from)})
	}
	if passed > x.req.credited {
		out = append(out, Action{Kind: CreditClient, N: int(passed - x.req.credited)})
		x.req.credited = passed
	}
	return out
}

// passed is how much of the request every living attempt was sent.
func (x *Exchange) passed() int64 {
	least, any := x.req.end, false
	for i := range x.attempts {
		if a := &x.attempts[i]; a.state != free {
			least, any = min(least, a.sent), true
		}
	}
	if !any {
		return x.req.kept
	}
	return least
}

// pumpReply sends the client what it can take of what was received; n bytes of
// that are the piece at hand.
func (x *Exchange) pumpReply(n int64, out []Action) []Action {
	if x.winner < 0 {
		return out
	}
	had := x.resp.end - n
	if m := min(x.resp.end-x.sent, x.credit); m > 0 {
		out = append(out, Action{Kind: ReplyData, From: x.sent, N: int(m)})
		x.sent += m
		x.credit -= m
		if x.resp.kept < had {
			out = append(out, Action{Kind: ForgetReply, From: x.sent})
		}
		x.resp.kept = x.sent
		if a := &x.attempts[x.winner]; a.state != free {
			out = append(out, Action{Kind: CreditBackend, Ref: a.ref, N: int(m)})
		}
	}
	if from := max(x.sent, had); from < x.resp.end && n > 0 {
		out = append(out, Action{Kind: KeepReply, From: from, N: int(x.resp.end - from)})
	}
	if x.resp.done && x.sent == x.resp.end && !x.replied {
		x.replied = true
		out = append(out, Action{Kind: ReplyEnd})
		if x.tunnel {
			return x.closed(out)
		}
		return x.finish(x.status, OK, out)
	}
	return out
}

func (x *Exchange) failed(a *attempt, ev *Event, out []Action) []Action {
	won := x.winner == int8(a.ref.Slot)
	stale := a.reused && !a.answered && ev.Flag == UpstreamReset
	answered := a.answered
	out = x.release(a, false, out)
	if won {
		return x.giveUp(ev.Flag, 0, out)
	}
	if x.alive() {
		return out
	}
	x.failure = ev.Flag
	if x.req.kept > 0 || answered || !ev.Unsent && !x.cfg.Idempotent {
		return x.giveUp(ev.Flag, 0, out)
	}
	if stale && (!x.cfg.CountStale || x.retries < x.cfg.Retries) {
		if x.cfg.CountStale {
			x.retries++
		}
		// A new connection cannot be stale, so this happens once a connection that
		// the other side had closed and is no failure of the target.
		return x.start(true, false, out)
	}
	// What never reached a backend was no burden to one.
	burden := ev.Flag != ConnectFailure
	if x.retries >= x.cfg.Retries {
		return x.giveUp(ev.Flag, 0, out)
	}
	x.retries++
	return x.start(false, burden, out)
}

// giveUp ends the exchange with an own answer, or cuts the one that has begun.
func (x *Exchange) giveUp(f Flag, status int, out []Action) []Action {
	out = x.releaseAll(out)
	if x.winner >= 0 {
		return x.finish(x.status, f, append(out, Action{Kind: Abort}))
	}
	if status == 0 && f == UpstreamReset {
		status = x.cfg.Lost
	}
	if status == 0 {
		status = f.Status()
	}
	return x.finish(status, f, append(out, Action{Kind: Local, Status: status, Flag: f}))
}

func (x *Exchange) alive() bool {
	for i := range x.attempts {
		if x.attempts[i].state != free {
			return true
		}
	}
	return false
}

func (x *Exchange) release(a *attempt, ok bool, out []Action) []Action {
	a.state = free
	return append(out, Action{Kind: Release, Ref: a.ref, OK: ok})
}

func (x *Exchange) releaseAll(out []Action) []Action {
	for i := range x.attempts {
		if a := &x.attempts[i]; a.state != free {
			out = x.release(a, false, out)
		}
	}
	return out
}

func (x *Exchange) finish(status int, f Flag, out []Action) []Action {
	x.active = false
	return append(out, Action{Kind: Finish, Status: status, Flag: f})
}
