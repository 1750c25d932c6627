package sim

// Arrival is one request as it comes to its user's site.
type Arrival struct {
	AtS  float64
	Site int
	// Work is in mean service times of whichever site serves it.
	Work float64
}

// Arrivals are the requests of every run of a scenario with this seed, in order: what
// a policy decides does not change them. Real sites can so be given the same ones.
func Arrivals(sc *Scenario, seed uint64) ([]Arrival, error) {
	var r recorder
	m, err := New(sc, &r, seed)
	if err != nil {
		return nil, err
	}
	m.Run(nil)
	return r.seen, nil
}

// recorder notes every request and refuses it.
type recorder struct {
	m    *Mesh
	seen []Arrival
}

func (r *recorder) Start(m *Mesh) error { r.m = m; return nil }

func (r *recorder) Pick(id int32, from int) int {
	r.seen = append(r.seen, Arrival{r.m.NowS(), from, r.m.requests[id].work})
	return Shed
}

func (*recorder) Left(int32)                 {}
func (*recorder) Answered(int32, bool)       {}
func (*recorder) Handle(uint8, int32, int32) {}
