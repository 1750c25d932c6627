package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// secureConns is how many connections rest in mode tls-idle.
const secureConns = 5000

// secureHold opens connections over TLS, each of which serves one request and then
// rests. It says how many there are, and after each order how many were served.
func secureHold(args []string, in io.Reader, out io.Writer) error {
	fs := flag.NewFlagSet(roleSecureHold, flag.ContinueOnError)
	addr := fs.String("addr", "", "proxy")
	n := fs.Int("connections", 1, "connections")
	dir := fs.String("dir", "", "folder of the proxy")
	if err := fs.Parse(args); err != nil {
		return err
	}
	config, err := clientConfig(*dir)
	if err != nil {
		return err
	}
	config.DynamicRecordSizingDisabled = true
	all := make([]*secureLoop, *n)
	for i := range all {
		all[i] = &secureLoop{addr: *addr, config: config}
	}
	answers := json.NewEncoder(out)
	if err := answers.Encode(onAll(all, (*secureLoop).ask)); err != nil {
		return err
	}
	for orders := json.NewDecoder(in); ; {
		var o order
		if err := orders.Decode(&o); err != nil {
			if !errors.Is(err, io.EOF) {
				return err
			}
			break
		}
		each := (*secureLoop).ask
		if o.Large {
			each = (*secureLoop).askLarge
		}
		if err := answers.Encode(onAll(all, each)); err != nil {
			return err
		}
	}
	for _, l := range all {
		if l.conn != nil {
			err = errors.Join(err, l.conn.Close())
		}
	}
	return err
}

// onAll has every connection do its part, eight at a time.
func onAll(all []*secureLoop, part func(*secureLoop) error) loadResult {
	var next, served atomic.Int64
	var first atomic.Pointer[error]
	var eight sync.WaitGroup
	began := time.Now()
	for range 8 {
		eight.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(all) && first.Load() == nil; i = int(next.Add(1)) - 1 {
				if err := part(all[i]); err != nil {
					first.CompareAndSwap(nil, &err)
					return
				}
				served.Add(1)
			}
		})
	}
	eight.Wait()
	r := loadResult{Requests: int(served.Load()), Took: time.Since(began)}
	if err := first.Load(); err != nil {
		r.Errors, r.Why = 1, (*err).Error()
	}
	return r
}

// twoLarge are two requests that fill a TLS record of the largest size, 16 KiB: one of
// that length has a longer head than HAProxy's buffer takes.
var twoLarge = func() []byte {
	const record, field = 16 << 10, "X-Fill: "
	head := strings.TrimSuffix(secureRequest, "\r\n")
	fill := strings.Repeat("f", record/2-len(head)-len(field+"\r\n\r\n"))
	return []byte(strings.Repeat(head+field+fill+"\r\n\r\n", 2))
}()

// askLarge sends twoLarge as one record and reads both answers.
func (l *secureLoop) askLarge() error {
	if err := l.conn.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return err
	}
	if _, err := l.conn.Write(twoLarge); err != nil {
		return err
	}
	return errors.Join(l.answer(), l.answer())
}

// secureIdleRow is a proxy's memory with connections over TLS, in bytes.
type secureIdleRow struct {
	Name    string    `json:"name"`
	Rest    footprint `json:"at_rest"`
	Held    footprint `json:"with_connections"`
	Large   footprint `json:"after_records_of_16_kib"`
	Counted int64     `json:"counted,omitempty"` // by our own proxy, of Large
	After   footprint `json:"after_they_closed"`
}

// each is what a connection takes beyond rest.
func (r secureIdleRow) each(f footprint) float64 { return float64(f.PSS-r.Rest.PSS) / secureConns }

// runSecureIdle measures the memory of proxies with connections over TLS: at rest after
// one request, after records of the largest size, and a minute after they have closed.
func runSecureIdle(ctx context.Context, o options) (rows []secureIdleRow, err error) {
	if err := raiseFiles(secureConns + 1000); err != nil {
		return nil, err
	}
	backend, backendAddr, err := startBackend(roleBackend, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, backend.stop()) }()
	ours, err := ourProxy(o, o.ours)
	if err != nil {
		return nil, err
	}
	plain := ours.command // without a limit it counts nothing
	ours.command = func(confFile, dir string) []string { return append(plain(confFile, dir), "--memory-limit", "1GiB") }
	theirs, err := peerProxy(o, "haproxy-idle")
	if err != nil {
		return nil, err
	}
	var all []*running
	defer func() {
		for _, r := range all {
			err = errors.Join(err, r.stop())
		}
	}()
	for _, p := range []proxy{ours, theirs} {
		r, err := secured(p).start(ctx, backendAddr, 1, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
		rows = append(rows, secureIdleRow{Name: r.name})
	}
	looks := func(after time.Duration, to func(*secureIdleRow) *footprint) error {
		if err := pause(ctx, after); err != nil {
			return err
		}
		errs := make([]error, len(all))
		var both sync.WaitGroup
		for i, r := range all {
			both.Go(func() { *to(&rows[i]), errs[i] = look(ctx, r) })
		}
		both.Wait()
		return errors.Join(errs...)
	}
	if err := looks(5*time.Second, func(r *secureIdleRow) *footprint { return &r.Rest }); err != nil {
		return nil, err
	}
	var holders []*child
	release := func() (err error) {
		for _, h := range holders {
			err = errors.Join(err, h.stop())
		}
		holders = nil
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	whole := func(r *running, held loadResult) error {
		if held.Errors > 0 || held.Requests != secureConns {
			return fmt.Errorf("%s: %d of %d connections served: %s", r.name, held.Requests, secureConns, held.Why)
		}
		return nil
	}
	ask := func(o order) error {
		for i, h := range holders {
			held, err := h.load(o)
			if err := errors.Join(err, whole(all[i], held)); err != nil {
				return err
			}
		}
		return nil
	}
	for _, r := range all {
		h, err := startChild(nil, roleSecureHold, "--addr", r.addr, "--dir", r.dir, "--connections", fmt.Sprint(secureConns))
		if err != nil {
			return nil, err
		}
		holders = append(holders, h)
		var held loadResult
		if err := errors.Join(h.answer(&held), whole(r, held)); err != nil {
			return nil, err
		}
	}
	if err := looks(10*time.Second, func(r *secureIdleRow) *footprint { return &r.Held }); err != nil {
		return nil, err
	}
	if err := ask(order{Large: true}); err != nil {
		return nil, err
	}
	if err := looks(10*time.Second, func(r *secureIdleRow) *footprint { return &r.Large }); err != nil {
		return nil, err
	}
	if rows[0].Counted, err = counted(all[0]); err != nil {
		return nil, err
	}
	if err := errors.Join(ask(order{}), release()); err != nil { // all were open until now
		return nil, err
	}
	return rows, looks(55*time.Second, func(r *secureIdleRow) *footprint { return &r.After })
}

// counted is what our proxy counts against its memory limit, by its metrics.
func counted(r *running) (int64, error) {
	text, err := os.ReadFile(filepath.Join(r.dir, "state", "run.json"))
	if err != nil {
		return 0, err
	}
	var run struct{ Admin string }
	if err := json.Unmarshal(text, &run); err != nil {
		return 0, err
	}
	client := http.Client{Timeout: answerLimit}
	resp, err := client.Get("http://" + run.Admin + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	const name = "meridian_memory_resident_bytes "
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), name); ok {
			n, err := strconv.ParseFloat(v, 64)
			return int64(n), err
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

// Bars of memory over TLS.
const (
	barSecure      = 0.7       // of HAProxy's, with connections at rest
	barSecureLarge = 36 * 1024 // bytes of an open connection after large records
)

// missedSecureIdle says which bars are missed; ours is the first row.
func missedSecureIdle(rows []secureIdleRow) (missed []string) {
	r := rows[0]
	for _, their := range rows[1:] {
		if ratio := float64(r.Held.PSS) / float64(their.Held.PSS); ratio > barSecure {
			missed = append(missed, fmt.Sprintf("tls-idle: %.2f of the memory of %s, the bar is %.2f", ratio, their.Name, barSecure))
		}
	}
	if v := r.each(r.Large); v > barSecureLarge {
		missed = append(missed, fmt.Sprintf("tls-idle: %.0f bytes a connection after large records, the bar is %d", v, barSecureLarge))
	}
	if v := float64(r.After.RSS-r.Rest.RSS) / mb; v > barAfter {
		missed = append(missed, fmt.Sprintf("tls-idle: after the connections closed %.1f MB more than at rest, the bar is %.1f MB", v, barAfter))
	}
	return missed
}

func secureIdleTable(rows []secureIdleRow) table {
	t := table{mark: "peers-tls-idle", caption: fmt.Sprintf("%d connections over TLS; the most of five looks, a second apart; MB of PSS, (KB of a connection), [MB that are no page of a file].", secureConns),
		headings: []string{"proxy", "at rest", "with connections that served a request", "after records of 16 KiB", "counted against the limit", "a minute after they closed"}}
	for _, r := range rows {
		m := func(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/mb) }
		each := func(f footprint) string { return fmt.Sprintf("%s (%.1f)", m(f.PSS), r.each(f)/1000) }
		by := "-"
		if r.Counted > 0 {
			by = m(r.Counted)
		}
		own := func(f footprint) string { return m(f.PSS) + " [" + m(f.Anon) + "]" }
		t.rows = append(t.rows, []string{r.Name, own(r.Rest), each(r.Held), each(r.Large), by, own(r.After)})
	}
	return t
}
