package traffic

import (
	"container/heap"
	"maps"
	"math"
	"slices"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Ranks order workloads by traffic, from 0.
type Ranks map[mesh.Workload]int

// Of is a workload's rank; those without traffic come last.
func (r Ranks) Of(w mesh.Workload) int {
	if i, ok := r[w]; ok {
		return i
	}
	return math.MaxInt
}

// Ranks orders workloads so that what talks follows each other: the one with the
// most traffic first, then always the one that exchanges most with those before
// it, and where none does, the one with the most traffic again.
func (x *Index) Ranks() Ranks {
	q := &rankQueue{at: map[mesh.Workload]int{}}
	for _, w := range slices.SortedFunc(maps.Keys(x.peers), mesh.Workload.Compare) {
		stress := 0.0
		for _, p := range x.peers[w] {
			stress += p.Out + p.In
		}
		q.at[w] = len(q.items)
		q.items = append(q.items, rankItem{w: w, stress: stress})
	}
	heap.Init(q)
	out := make(Ranks, len(q.items))
	for q.Len() > 0 {
		next := heap.Pop(q).(rankItem)
		out[next.w] = len(out)
		for _, p := range x.peers[next.w] {
			if i, ok := q.at[p.Workload]; ok {
				q.items[i].drawn += p.Out + p.In
				heap.Fix(q, i)
			}
		}
	}
	return out
}

type rankItem struct {
	w             mesh.Workload
	drawn, stress float64
}

// rankQueue is a heap of what has no rank yet.
type rankQueue struct {
	items []rankItem
	at    map[mesh.Workload]int
}

func (q *rankQueue) Len() int { return len(q.items) }

func (q *rankQueue) Less(i, j int) bool {
	a, b := q.items[i], q.items[j]
	switch {
	case a.drawn != b.drawn:
		return a.drawn > b.drawn
	case a.stress != b.stress:
		return a.stress > b.stress
	}
	return a.w.Compare(b.w) < 0
}

func (q *rankQueue) Swap(i, j int) {
	q.items[i], q.items[j] = q.items[j], q.items[i]
	q.at[q.items[i].w], q.at[q.items[j].w] = i, j
}

func (q *rankQueue) Push(any) { panic("a rank queue only shrinks") }

func (q *rankQueue) Pop() any {
	last := q.items[len(q.items)-1]
	q.items = q.items[:len(q.items)-1]
	delete(q.at, last.w)
	return last
}
