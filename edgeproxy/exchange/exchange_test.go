package exchange

import (
	"fmt"
	"strings"
	"testing"
)

// text writes actions as a test reads them.
func text(acts []Action) string {
	names := map[ActionKind]string{
		Start: "start", SendHead: "head", SendData: "data", SendEnd: "end", Keep: "keep", Forget: "forget",
		CreditClient: "credit-client", Release: "release", ReplyInformational: "reply-1xx", ReplyHead: "reply-head",
		ReplyData: "reply-data", ReplyEnd: "reply-end", KeepReply: "keep-reply", ForgetReply: "forget-reply",
		CreditBackend: "credit-backend", Local: "local", Abort: "abort", Finish: "finish",
	}
	var out []string
	for _, a := range acts {
		s := names[a.Kind]
		switch a.Kind {
		case Start:
			if a.Fresh {
				s += " fresh"
			}
			if a.Retry {
				s += " again"
			}
			if a.Burden {
				s += " burden"
			}
		case SendData, ReplyData, Keep, KeepReply:
			s += fmt.Sprintf(" %d+%d", a.From, a.N)
		case Forget, ForgetReply:
			s += fmt.Sprintf(" <%d", a.From)
		case CreditClient, CreditBackend:
			s += fmt.Sprintf(" %d", a.N)
		case Release:
			s += map[bool]string{true: " ok", false: " failed"}[a.OK]
		case Local, Finish:
			s += fmt.Sprintf(" %d %s", a.Status, a.Flag)
		}
		out = append(out, strings.TrimSpace(s))
	}
	return strings.Join(out, ", ")
}

// TestScripts are whole lives: an event a line and what has to follow. The
// attempt of an event is the last one started unless it says otherwise.
func TestScripts(t *testing.T) {
	type line struct {
		ev   Event
		want string
	}
	get := Config{Retries: 2, Idempotent: true, MaxReplay: 10, ClientCredit: 100}
	post := Config{Retries: 2, MaxReplay: 10, ClientCredit: 100}
	req := func(want string) line { return line{Event{Kind: Request}, want} }
	upload := line{Event{Kind: Request, More: true}, "start"}
	ready := func(want string) line { return line{Event{Kind: Ready, N: 100}, want} }
	strict := Config{Retries: 1, Idempotent: true, MaxReplay: 10, ClientCredit: 100, CountStale: true, Lost: 503}
	unwanted := Event{Kind: Response, Status: 503, Retry: true}
	for name, tt := range map[string]struct {
		cfg   Config
		lines []line
	}{
		"unwanted responses": {get, []line{
			req("start"), ready("head, end"), {unwanted, "release failed, start again"},
			ready("head, end"), {unwanted, "release failed, start again"},
			ready("head, end"), {unwanted, "reply-head"},
			{Event{Kind: ResponseEnd}, "release ok, reply-end, finish 503"},
		}},
		"an unwanted response to a POST": {post, []line{
			req("start"), ready("head, end"), {unwanted, "reply-head"},
		}},
		"an unwanted response, the body is gone": {get, []line{
			upload, ready("head"),
			{Event{Kind: RequestData, N: 18}, "data 0+18, credit-client 18"},
			{unwanted, "reply-head"},
		}},
		"an unwanted response, the body is kept": {get, []line{
			upload, ready("head"),
			{Event{Kind: RequestData, N: 4}, "data 0+4, keep 0+4, credit-client 4"},
			{unwanted, "release failed, start again"},
			{Event{Kind: RequestEnd}, ""},
			ready("head, data 0+4, end"),
		}},
		"an unwanted response, nowhere else to go": {get, []line{
			req("start"), ready("head, end"), {unwanted, "release failed, start again"},
			{Event{Kind: NoTarget, Flag: NoHealthy}, "release failed, local 503 UH, finish 503 UH"},
		}},
		"stale connections count": {strict, []line{
			req("start"), {Event{Kind: Ready, N: 100, Reused: true}, "head, end"},
			{Event{Kind: Failed, Flag: UpstreamReset}, "release failed, start fresh again"},
			ready("head, end"),
			{Event{Kind: Failed, Flag: UpstreamReset}, "release failed, local 503 UC, finish 503 UC"},
		}},
		"plain": {get, []line{
			req("start"), ready("head, end"),
			{Event{Kind: Response, Status: 200}, "reply-head"},
			{Event{Kind: ResponseData, N: 7}, "reply-data 0+7, credit-backend 7"},
			{Event{Kind: ResponseEnd}, "release ok, reply-end, finish 200"},
		}},
		"1xx comes before": {get, []line{
			req("start"), ready("head, end"),
			{Event{Kind: Informational, Status: 103}, "reply-1xx"},
			{Event{Kind: Response, Status: 200}, "reply-head"},
			{Event{Kind: ResponseEnd}, "release ok, reply-end, finish 200"},
		}},
		"no route": {get, []line{
			req("start"), {Event{Kind: NoTarget, Flag: NoRoute}, "release failed, local 404 NR, finish 404 NR"},
		}},
		"connect refused twice, then served": {get, []line{
			req("start"),
			{Event{Kind: Failed, Flag: ConnectFailure, Unsent: true}, "release failed, start again"},
			{Event{Kind: Failed, Flag: ConnectFailure, Unsent: true}, "release failed, start again"},
			ready("head, end"), {Event{Kind: Response, Status: 200}, "reply-head"},
		}},
		"attempts are bounded": {get, []line{
			req("start"),
			{Event{Kind: Failed, Flag: UpstreamReset}, "release failed, start again burden"},
			{Event{Kind: Failed, Flag: UpstreamReset}, "release failed, start again burden"},
			{Event{Kind: Failed, Flag: UpstreamReset}, "release failed, local 502 UC, finish 502 UC"},
		}},
		"no budget gives the first failure": {get, []line{
			req("start"), ready("head, end"),
			{Event{Kind: Failed, Flag: UpstreamReset}, "release failed, start again burden"},
			{Event{Kind: NoTarget, Flag: Overload}, "release failed, local 502 UC, finish 502 UC"},
		}},
		"stale connection once": {get, []line{
			req("start"), {Event{Kind: Ready, N: 100, Reused: true}, "head, end"},
			{Event{Kind: Failed, Flag: UpstreamReset}, "release failed, start fresh again"},
			ready("head, end"),
			{Event{Kind: Failed, Flag: UpstreamReset}, "release failed, start again burden"},
		}},
		"stale connection, not idempotent": {post, []line{
			req("start"), {Event{Kind: Ready, N: 100, Reused: true}, "head, end"},
			{Event{Kind: Failed, Flag: UpstreamReset}, "release failed, local 502 UC, finish 502 UC"},
		}},
		"stale connection, nothing sent": {post, []line{
			req("start"), {Event{Kind: Ready, N: 100, Reused: true}, "head, end"},
			{Event{Kind: Failed, Flag: UpstreamReset, Unsent: true}, "release failed, start fresh again"},
		}},
		"body is kept for a retry": {get, []line{
			upload,
			{Event{Kind: RequestData, N: 4}, "keep 0+4"},
			ready("head, data 0+4, credit-client 4"),
			{Event{Kind: RequestData, N: 4}, "data 4+4, keep 4+4, credit-client 4"},
			{Event{Kind: Failed, Flag: UpstreamReset}, "release failed, start again burden"},
			{Event{Kind: RequestEnd}, ""},
			ready("head, data 0+8, end"),
			{Event{Kind: Response, Status: 200}, "reply-head, forget <8"},
		}},
		"a long body is not": {get, []line{
			upload, ready("head"),
			{Event{Kind: RequestData, N: 8}, "data 0+8, keep 0+8, credit-client 8"},
			{Event{Kind: RequestData, N: 8}, "data 8+8, forget <16, credit-client 8"},
			{Event{Kind: Failed, Flag: UpstreamReset}, "release failed, local 502 UC, finish 502 UC"},
		}},
		"a long body waits for its first target": {post, []line{
			upload,
			{Event{Kind: RequestData, N: 80}, "keep 0+80"},
			{Event{Kind: Failed, Flag: ConnectFailure, Unsent: true}, "release failed, start again"},
			{Event{Kind: RequestEnd}, ""},
			ready("head, data 0+80, end, forget <80, credit-client 80"),
		}},
		"slow backend": {post, []line{
			upload, {Event{Kind: Ready, N: 5}, "head"},
			{Event{Kind: RequestData, N: 30}, "data 0+5, keep 5+25, credit-client 5"},
			{Event{Kind: RequestEnd}, ""},
			{Event{Kind: BackendCredit, N: 20}, "data 5+20, forget <25, credit-client 20"},
			{Event{Kind: BackendCredit, N: 20}, "data 25+5, end, forget <30, credit-client 5"},
		}},
		"slow client": {get, []line{
			req("start"), ready("head, end"), {Event{Kind: Response, Status: 200}, "reply-head"},
			{Event{Kind: ResponseData, N: 130}, "reply-data 0+100, credit-backend 100, keep-reply 100+30"},
			{Event{Kind: ResponseEnd}, "release ok"},
			{Event{Kind: ClientCredit, N: 10}, "reply-data 100+10, forget-reply <110"},
			{Event{Kind: ClientCredit, N: 50}, "reply-data 110+20, forget-reply <130, reply-end, finish 200"},
		}},
		"backend dies in its response": {get, []line{
			req("start"), ready("head, end"), {Event{Kind: Response, Status: 200}, "reply-head"},
			{Event{Kind: Failed, Flag: UpstreamReset}, "release failed, abort, finish 200 UC"},
		}},
		"client leaves": {get, []line{
			req("start"), ready("head, end"), {Event{Kind: ClientGone}, "release failed, finish 0 DC"},
			{Event{Kind: Response, Status: 200}, ""},
		}},
		"timeouts": {get, []line{
			req("start"), ready("head, end"),
			{Event{Kind: AttemptTimeout}, "release failed, start again burden"},
			{Event{Kind: Stop, Flag: UpstreamTimeout}, "release failed, local 504 UT, finish 504 UT"},
		}},
		"answer before the request is complete": {post, []line{
			upload, ready("head"),
			{Event{Kind: RequestData, N: 50}, "data 0+50, credit-client 50"},
			{Event{Kind: Response, Status: 413}, "reply-head"},
			{Event{Kind: RequestData, N: 60}, "data 50+50, keep 100+10, credit-client 50"},
			{Event{Kind: ResponseEnd}, "release ok, reply-end, finish 413"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var x Exchange
			x.Begin(tt.cfg)
			var ref Ref
			for i, l := range tt.lines {
				l.ev.Ref = ref
				acts := x.Step(&l.ev, nil)
				if got := text(acts); got != l.want {
					t.Fatalf("line %d: %q, want %q", i, got, l.want)
				}
				for _, a := range acts {
					if a.Kind == Start {
						ref = a.Ref
					}
				}
			}
		})
	}
}

// TestOldReferences proves that an answer which comes too late names nothing.
func TestOldReferences(t *testing.T) {
	var x Exchange
	x.Begin(Config{Retries: 1, Idempotent: true})
	first := x.Step(&Event{Kind: Request}, nil)[0].Ref
	second := x.Step(&Event{Kind: AttemptTimeout, Ref: first}, nil)[1].Ref
	for kind := Ready; kind <= AttemptTimeout; kind++ {
		if acts := x.Step(&Event{Kind: kind, Ref: first, N: 5}, nil); len(acts) != 0 {
			t.Errorf("event %d of a released attempt: %s", kind, text(acts))
		}
	}
	x.Step(&Event{Kind: ClientGone}, nil)
	x.Begin(Config{})
	third := x.Step(&Event{Kind: Request}, nil)[0].Ref
	if third == first || third == second {
		t.Fatal("a reference was used again")
	}
	if acts := x.Step(&Event{Kind: Ready, Ref: second}, nil); len(acts) != 0 {
		t.Errorf("event of an exchange that is over: %s", text(acts))
	}
}

func TestStepAllocatesNothing(t *testing.T) {
	var x Exchange
	acts := make([]Action, 0, 32)
	if n := testing.AllocsPerRun(100, func() {
		x.Begin(Config{ClientCredit: 100})
		acts = x.Step(&Event{Kind: Request}, acts[:0])
		ref := acts[0].Ref
		acts = x.Step(&Event{Kind: Ready, Ref: ref, N: 100}, acts[:0])
		acts = x.Step(&Event{Kind: Response, Ref: ref, Status: 200}, acts[:0])
		acts = x.Step(&Event{Kind: ResponseData, Ref: ref, N: 10}, acts[:0])
		acts = x.Step(&Event{Kind: ResponseEnd, Ref: ref}, acts[:0])
	}); n != 0 {
		t.Fatalf("%v allocations a request", n)
	}
}
