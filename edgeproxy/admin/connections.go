package admin

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/meridian-mesh/meridian/edgeproxy"
)

// maxConnections bounds a listing: of each loop, the newest.
const maxConnections = 1000

// connections lists clients' connections, or tells all of one by ?id=N.
func (n Node) connections(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if !q.Has("id") {
		writeJSON(w, struct {
			Open        uint64                 `json:"open"`
			Connections []edgeproxy.Connection `json:"connections"` // the newest
		}{n.Proxy.Stats().Connections, n.Proxy.Connections(maxConnections)})
		return
	}
	id, err := strconv.ParseUint(q.Get("id"), 10, 64)
	if err != nil {
		http.Error(w, fmt.Sprintf("id=%s: want a number, as /connections lists it", q.Get("id")), http.StatusBadRequest)
		return
	}
	c, ok := n.Proxy.Connection(id)
	if !ok {
		http.Error(w, fmt.Sprintf("no connection has the id %d now", id), http.StatusNotFound)
		return
	}
	writeJSON(w, c)
}
