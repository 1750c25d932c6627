package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// Verb answers one kind of request: JSON in, JSON out. Each call has its own
// goroutine and a deadline.
type Verb func(ctx context.Context, request []byte) ([]byte, error)

// failure is the body of an answer that is an error.
type failure struct {
	Error string `json:"error"`
}

// verbTimeout bounds one request.
const verbTimeout = 10 * time.Second

// apiVersion is the version of the verbs, which NATS wants as SemVer. It is not
// the build's.
const apiVersion = "1.0.0"

// maxVerbs bounds how many requests are worked on at once; more are refused.
const maxVerbs = 32

// ServeAPI answers requests on [APISubject] for each verb, as a service that
// `nats micro` can list and measure, until ctx ends. version is the build's.
func (c *Conn) ServeAPI(ctx context.Context, site, version string, verbs map[string]Verb) error {
	svc, err := micro.AddService(c.nc, micro.Config{
		Name: "meridian-site", Version: apiVersion, Description: "site controller",
		Metadata: map[string]string{"site": site, "build": version},
	})
	if err != nil {
		return fmt.Errorf("bus: serve API: %w", err)
	}
	slots := make(chan struct{}, maxVerbs)
	for verb, answer := range verbs {
		h := func(r micro.Request) {
			select {
			case slots <- struct{}{}:
			default:
				_ = r.Error("503", "the controller is busy: try again", nil)
				return
			}
			go func() {
				defer func() { <-slots }()
				call, done := context.WithTimeout(ctx, verbTimeout)
				defer done()
				out, err := answer(call, r.Data())
				if err != nil {
					body, encErr := json.Marshal(failure{err.Error()})
					_ = r.Error("400", oneLine(errors.Join(err, encErr).Error()), body)
					return
				}
				_ = r.Respond(out)
			}()
		}
		err := svc.AddEndpoint(verb, micro.HandlerFunc(h),
			micro.WithEndpointSubject(APISubject(site, verb)), micro.WithEndpointQueueGroupDisabled())
		if err != nil {
			_ = svc.Stop()
			return fmt.Errorf("bus: serve API %s: %w", verb, err)
		}
	}
	context.AfterFunc(ctx, func() { _ = svc.Stop() })
	return nil
}

// oneLine fits a text into a message header.
func oneLine(s string) string {
	for i := range len(s) {
		if s[i] == '\n' || s[i] == '\r' {
			return s[:i]
		}
	}
	return s
}

// Call asks one verb of a site's controller. ctx must have a deadline.
func (c *Conn) Call(ctx context.Context, site, verb string, request []byte) ([]byte, error) {
	return c.call(ctx, APISubject(site, verb), "controller of site "+site, verb, request)
}

// CallNode asks one verb of a node of the own site. ctx must have a deadline.
func (c *Conn) CallNode(ctx context.Context, site, node, verb string, request []byte) ([]byte, error) {
	return c.call(ctx, NodeAPISubject(site, node, verb), "node "+node, verb, request)
}

func (c *Conn) call(ctx context.Context, subject, who, verb string, request []byte) ([]byte, error) {
	m, err := c.nc.RequestWithContext(ctx, subject, request)
	if errors.Is(err, nats.ErrNoResponders) {
		return nil, fmt.Errorf("bus: no %s answers", who)
	}
	if err != nil {
		return nil, fmt.Errorf("bus: ask %s for %s: %w", who, verb, err)
	}
	if m.Header.Get(micro.ErrorCodeHeader) != "" {
		var e struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(m.Data, &e) == nil && e.Error != "" {
			return nil, errors.New(e.Error)
		}
		return nil, errors.New(m.Header.Get(micro.ErrorHeader))
	}
	return m.Data, nil
}
