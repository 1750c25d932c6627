package admin

import "github.com/meridian-mesh/meridian/api/mesh"

func (fakeProxy) Tap(q *mesh.TapQuery) (*mesh.TapAnswer, error) {
	return &mesh.TapAnswer{Seq: q.After}, q.Check()
}

func (fakeProxy) Failed(q *mesh.FailedQuery) (*mesh.FailedAnswer, error) {
	return &mesh.FailedAnswer{Kept: q.Most}, q.Check()
}
