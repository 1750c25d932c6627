package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/identity"
	"github.com/meridian-mesh/meridian/internal/bus"
	"github.com/meridian-mesh/meridian/internal/spiffe"
)

// workloadFault says what is wrong with the name of a workload.
func workloadFault(s string) error {
	namespace, account, ok := strings.Cut(s, "/")
	switch {
	case !ok:
		return errors.New("want namespace/account")
	case namespace == spiffe.NodeNamespace:
		return fmt.Errorf("identities in namespace %s are those of nodes", spiffe.NodeNamespace)
	}
	return errors.Join(spiffe.CheckSegment(namespace), spiffe.CheckSegment(account))
}

// actAsWorkload has the site's controller asked for the identity of the workload that
// this proxy is beside.
func (n *node) actAsWorkload() {
	o := n.opts
	if o.workload == "" {
		return
	}
	namespace, account, _ := strings.Cut(o.workload, "/")
	n.proxy.ActAsWorkload()
	n.workload = identity.New(identity.Config{
		Site: o.site, Namespace: namespace, Account: account, StateDir: o.stateDir, File: identity.WorkloadFile,
		Log: n.log.With("workload", o.workload), Use: n.proxy.SetWorkload,
		Wanted: func() bool { return n.proxy.TrustDomain() != "" && !n.handedOver.Load() },
		Ask: func(ctx context.Context, request []byte) ([]byte, error) {
			r := bus.WorkloadRequest{Namespace: namespace, Account: account, Request: request}
			if o.workloadToken != "" { // it is replaced from time to time
				token, err := os.ReadFile(o.workloadToken)
				if err != nil {
					return nil, fmt.Errorf("--workload-token-file: %w", err)
				}
				r.Token = strings.TrimSpace(string(token))
			}
			return n.bus.Workload(ctx, o.node, &r)
		},
	})
}

// identityOf is a certificate as it is reported, nil where there is none.
func identityOf(c *x509.Certificate) *mesh.NodeIdentity {
	if c == nil {
		return nil
	}
	return &mesh.NodeIdentity{ID: c.URIs[0].String(), Serial: c.SerialNumber.Text(16), NotAfter: c.NotAfter}
}
