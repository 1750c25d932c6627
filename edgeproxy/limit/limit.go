// Package limit bounds what a proxy takes on: [RetryBudget] keeps retries a small
// share of the requests, [Meter] what goes over a link within its budget.
package limit

// RetryBudget lets retries be a share of requests plus a steady trickle. A flat
// number of attempts multiplies the load just when everything fails; a budget
// bounds it by Ratio whatever fails (Finagle's and Linkerd's retry budgets).
//
// It is a token bucket: a request pays Ratio in, time pays MinPerSecond in, a
// retry takes 1 out, and what a window of ten seconds could have paid is the most
// it holds. It belongs to one event loop. The zero value allows no retry.
type RetryBudget struct {
	// Ratio is the share of requests that may be retried: 0.2 is one in five.
	Ratio float64
	// MinPerSecond is how many retries a second are allowed when there are too few
	// requests for Ratio to pay for any.
	MinPerSecond float64

	tokens float64
	rate   float64 // tokens paid in by requests during the window, fading
	last   int64
	begun  bool
}

// window is how long unused allowance is kept, in seconds.
const window = 10

// Request counts a first attempt. now is in nanoseconds of a monotonic clock with
// any zero.
func (b *RetryBudget) Request(now int64) {
	b.advance(now)
	b.rate += b.Ratio
	b.tokens = min(b.tokens+b.Ratio, b.most())
}

// Retry reports whether a retry is allowed now and takes it out of the budget.
func (b *RetryBudget) Retry(now int64) bool {
	b.advance(now)
	// One part in a million is what adding up fractions may lose.
	if b.tokens < 1-1e-6 {
		return false
	}
	b.tokens--
	return true
}

func (b *RetryBudget) most() float64 {
	return max(b.rate+b.MinPerSecond*window, 1)
}

func (b *RetryBudget) advance(now int64) {
	if !b.begun {
		// A start may fail: the trickle of a window is there at once.
		b.begun, b.last, b.tokens = true, now, b.MinPerSecond*window
		return
	}
	d := float64(now-b.last) / 1e9
	b.last = now
	b.rate -= b.rate * min(d/window, 1)
	b.tokens = min(b.tokens+b.MinPerSecond*d, b.most())
}
