package admin

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy"
)

func (n Node) weights(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var since time.Time
	if s := q.Get("since"); s != "" {
		ms, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			http.Error(w, fmt.Sprintf("since=%s: want Unix milliseconds", s), http.StatusBadRequest)
			return
		}
		since = time.UnixMilli(ms)
	}
	v := n.Weights(since)
	if q.Get("format") != "text" {
		writeJSON(w, v)
		return
	}
	writeText(w, http.StatusOK, []byte(weightsTable(v)))
}

func weightsTable(v edgeproxy.WeightsView) string {
	var b strings.Builder
	for _, s := range v.Services {
		fmt.Fprintf(&b, "%s  (%s, %s since %s): in flight %d, stay home below %d\n", s.Service, s.Policy, s.Source,
			time.UnixMilli(s.SinceMS).UTC().Format(time.RFC3339), s.InFlight, s.HomeLimit)
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "  SITE\tSHARE\tPRICE\tRTT\tOUTSTANDING\tLIMIT\tREPORT AGE\tNOTE")
		fmt.Fprintf(t, "  %s (here)\t%.1f%%\t\t\t\t\t\t\n", v.Site, 100*s.HomeShare)
		for _, r := range s.Remotes {
			note := r.Excluded
			if r.Suspect != "" {
				note = strings.TrimPrefix(note+"; suspect: "+r.Suspect, "; ")
			}
			fmt.Fprintf(t, "  %s\t%.1f%%\t%.1f ms\t%.1f ms\t%d\t%d\t%.0f ms\t%s\n", r.Site, 100*r.Share, r.PriceMS, r.RTTMS, r.Outstanding, r.Limit, r.AgeMS, note)
		}
		t.Flush()
		b.WriteByte('\n')
	}
	if len(v.Services) == 0 {
		b.WriteString("no service of this node is shared between sites\n")
	}
	return b.String()
}
