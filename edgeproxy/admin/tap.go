package admin

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// tap says which requests ended since it was asked before: ?q= a [mesh.TapQuery] in JSON.
func (n Node) tap(w http.ResponseWriter, r *http.Request) {
	q, err := inJSON[mesh.TapQuery](r)
	if err == nil && q.Session == "" {
		err = errors.New(`want ?q={"session":"NAME"}, with a name that nobody else has, and a filter: {"session":"NAME","filter":{"status":"5xx"}}`)
	}
	answerQuery(w, q, err, n.Proxy.Tap)
}

// failed says which requests failed or took long: ?q= a [mesh.FailedQuery] in JSON.
func (n Node) failed(w http.ResponseWriter, r *http.Request) {
	q, err := inJSON[mesh.FailedQuery](r)
	answerQuery(w, q, err, n.Proxy.Failed)
}

// logs gives the end of a log: ?q= a [mesh.LogQuery] in JSON.
func (n Node) logs(w http.ResponseWriter, r *http.Request) {
	q, err := inJSON[mesh.LogQuery](r)
	answerQuery(w, q, err, n.Logs)
}

// inJSON reads a query; none is the empty one.
func inJSON[T any](r *http.Request) (*T, error) {
	q := new(T)
	text := r.URL.Query().Get("q")
	if text == "" {
		return q, nil
	}
	if err := json.Unmarshal([]byte(text), q); err != nil {
		return nil, errors.New("q: " + err.Error())
	}
	return q, nil
}

func answerQuery[In, Out any](w http.ResponseWriter, q *In, err error, f func(*In) (*Out, error)) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out, err := f(q)
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	writeJSON(w, out)
}
