package bus

import (
	"context"
	"encoding/json"
	"fmt"
)

const workloadPrefix = "mesh.workload."

// WorkloadSubject is where a node asks its site's controller for the certificate of a
// workload that runs there.
func WorkloadSubject(site, node string) string {
	return workloadPrefix + Token(site) + "." + Token(node)
}

// WorkloadSubjects matches those of all nodes of a site.
func WorkloadSubjects(site string) string { return workloadPrefix + Token(site) + ".*" }

// WorkloadRequest asks for the certificate of a workload.
type WorkloadRequest struct {
	Namespace string `json:"namespace"`
	Account   string `json:"account"`
	// Token is of the workload's Kubernetes service account, empty outside of a cluster.
	Token string `json:"token,omitempty"`
	// Request is what the certificate is made of (PKCS #10, DER).
	Request []byte `json:"request"`
}

// CertifyWorkload answers a node's request for a workload's certificate with a chain
// (PEM).
type CertifyWorkload func(ctx context.Context, node string, r *WorkloadRequest) ([]byte, error)

// ServeWorkloads answers requests for the certificates of a site's workloads, one at a
// time, until ctx ends.
func (c *Conn) ServeWorkloads(ctx context.Context, site string, certify CertifyWorkload) error {
	return c.ServeCertificates(ctx, WorkloadSubjects(site), func(ctx context.Context, node string, data []byte) ([]byte, error) {
		var r WorkloadRequest
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, fmt.Errorf("request cannot be read: %w", err)
		}
		return certify(ctx, node, &r)
	})
}

// Workload asks the site's controller for a workload's certificate. ctx must have a
// deadline.
func (n *Node) Workload(ctx context.Context, node string, r *WorkloadRequest) ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	return n.call(ctx, WorkloadSubject(n.site, node), "controller of site "+n.site, "a workload's certificate", data)
}
