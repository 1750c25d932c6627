package upstream

// Budget bounds retries to a share of requests, so that a failing backend is not
// buried under them: each request earns a fifth of a retry, up to a reserve.
// The zero Budget starts full. It belongs to one loop.
type Budget struct{ spent int }

const (
	budgetReserve = 50 // fifths of a retry
	budgetPrice   = 5
)

// Earn counts a request.
func (b *Budget) Earn() {
	if b.spent > 0 {
		b.spent--
	}
}

// Has reports whether a retry may be spent.
func (b *Budget) Has() bool { return b.spent+budgetPrice <= budgetReserve }

// Spend counts a retry.
func (b *Budget) Spend() { b.spent += budgetPrice }
