package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// Subjects by which identities are asked for. Who may publish on one is who may have
// what is asked for there: a site's name in the subject is as good as the server's
// permissions, and no word in the request says who asks.
const (
	leafPrefix   = "mesh.leaf."
	issuerPrefix = "mesh.issuer."
)

// LeafSubject is where a node asks its site's controller for a certificate.
func LeafSubject(site, node string) string { return leafPrefix + Token(site) + "." + Token(node) }

// LeafSubjects matches those of all nodes of a site.
func LeafSubjects(site string) string { return leafPrefix + Token(site) + ".*" }

// IssuerSubject is where a site asks the hub for its issuer's certificate.
func IssuerSubject(site string) string { return issuerPrefix + Token(site) }

// IssuerSubjects matches those of all sites.
const IssuerSubjects = issuerPrefix + "*"

// Certify answers one request for a certificate (DER) of who the last token of the
// subject names, with a chain (PEM).
type Certify func(ctx context.Context, name string, request []byte) ([]byte, error)

// ServeCertificates answers requests for certificates on subjects that end in a name,
// one at a time, until ctx ends.
func (c *Conn) ServeCertificates(ctx context.Context, subjects string, certify Certify) error {
	sub, err := c.nc.Subscribe(subjects, func(m *nats.Msg) {
		call, done := context.WithTimeout(ctx, verbTimeout)
		defer done()
		out := nats.NewMsg(m.Reply)
		who, err := name(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
		if err == nil {
			out.Data, err = certify(call, who, m.Data)
		}
		if err != nil {
			if out.Data, err = json.Marshal(failure{err.Error()}); err != nil {
				return // a string that JSON cannot hold: the asker times out
			}
			out.Header.Set(micro.ErrorCodeHeader, "400")
		}
		if err := m.RespondMsg(out); err != nil {
			c.once("answer:"+subjects, "certificate is not sent", "subjects", subjects, "err", err)
		}
	})
	if err != nil {
		return fmt.Errorf("bus: serve certificates: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = sub.Unsubscribe() })
	return nil
}

// Leaf asks the site's controller for a node's certificate. ctx must have a deadline.
func (n *Node) Leaf(ctx context.Context, node string, request []byte) ([]byte, error) {
	return n.call(ctx, LeafSubject(n.site, node), "controller of site "+n.site, "a certificate", request)
}

// Issuer asks the hub for a site's issuer's certificate. ctx must have a deadline.
func (c *Conn) Issuer(ctx context.Context, site string, request []byte) ([]byte, error) {
	return c.call(ctx, IssuerSubject(site), "hub", "an issuer's certificate", request)
}
