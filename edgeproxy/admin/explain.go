package admin

import (
	"net/http"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// explain says where a request would go: ?host=, path=, method=, header=name: value
// (more than once), listener=, or protocol=tcp or udp, port= and host=, or service=namespace/name for one of another site.
func (n Node) explain(w http.ResponseWriter, r *http.Request) {
	q, err := mesh.ParseExplainQuery(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	x, err := n.Proxy.Explain(q)
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	writeJSON(w, x)
}
