package exchange

// closed finishes a tunnel whose two directions have ended.
func (x *Exchange) closed(out []Action) []Action {
	if a := &x.attempts[x.winner]; x.replied && a.ended && (!a.holds || a.credit == a.granted) {
		return x.finish(x.status, OK, x.release(a, true, out))
	}
	return out
}
