package exchange

import "testing"

// TestTunnels are the lives of streams that carry bytes either way.
func TestTunnels(t *testing.T) {
	type line struct {
		ev   Event
		want string
	}
	agreed := Event{Kind: Response, Status: 200, Switch: true}
	for name, lines := range map[string][]line{
		"the client ends first, its request was whole": {
			{Event{Kind: Request}, "start"},
			{Event{Kind: Ready, N: 100}, "head, end"},
			{agreed, "reply-head"},
			{Event{Kind: RequestData, N: 5}, "data 0+5, credit-client 5"},
			{Event{Kind: RequestEnd}, "end"},
			{Event{Kind: ResponseData, N: 7}, "reply-data 0+7, credit-backend 7"},
			{Event{Kind: ResponseEnd}, "reply-end, release ok, finish 200"},
		},
		"the client had ended before it was there": {
			{Event{Kind: Request, More: true}, "start"},
			{Event{Kind: RequestData, N: 4}, "keep 0+4"},
			{Event{Kind: RequestEnd}, ""},
			{Event{Kind: Ready, N: 100}, "head, data 0+4, end, credit-client 4"},
			{agreed, "reply-head, forget <4"},
			{Event{Kind: ResponseData, N: 7}, "reply-data 0+7, credit-backend 7"},
			{Event{Kind: ResponseEnd}, "reply-end, release ok, finish 200"},
		},
		"what waits for the window is sent before it is over": {
			{Event{Kind: Request, More: true}, "start"},
			{Event{Kind: Ready, N: 100, Holds: true}, "head"},
			{agreed, "reply-head"},
			{Event{Kind: ResponseEnd}, "reply-end"},
			{Event{Kind: RequestData, N: 30}, "data 0+30, credit-client 30"},
			{Event{Kind: RequestEnd}, "end"},
			{Event{Kind: BackendCredit, N: 20}, ""},
			{Event{Kind: BackendCredit, N: 10}, "release ok, finish 200"},
		},
		"the backend breaks": {
			{Event{Kind: Request, More: true}, "start"},
			{Event{Kind: Ready, N: 100, Holds: true}, "head"},
			{agreed, "reply-head"},
			{Event{Kind: RequestData, N: 30}, "data 0+30, credit-client 30"},
			{Event{Kind: Failed, Flag: UpstreamReset}, "release failed, abort, finish 200 UC"},
		},
		"refused, and tried elsewhere with what the client has sent": {
			{Event{Kind: Request, More: true}, "start"},
			{Event{Kind: Ready, N: 100, Holds: true}, "head"},
			{Event{Kind: RequestData, N: 4}, "data 0+4, keep 0+4, credit-client 4"},
			{Event{Kind: Failed, Flag: NoHealthy, Unsent: true}, "release failed, start again burden"},
			{Event{Kind: Ready, N: 100}, "head, data 0+4"},
			{agreed, "reply-head, forget <4"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var x Exchange
			x.Begin(Config{Retries: 2, MaxReplay: 10, ClientCredit: 100})
			var ref Ref
			for i, l := range lines {
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
