package controller

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/meridian-mesh/meridian/controller/check"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

const (
	// settleWithin bounds how long a check waits for nodes to take a new snapshot.
	settleWithin = 6 * time.Second
	settleLook   = 250 * time.Millisecond
)

// check looks at the whole mesh from here. While nodes take a new snapshot it waits
// a little: what is under way is no fault.
func (s *Server) check(ctx context.Context) (*siteapi.Checked, error) {
	for end := time.Now().Add(settleWithin); ; {
		in, err := s.known(ctx)
		if err != nil {
			return nil, err
		}
		if check.Settling(in.Status) && time.Now().Before(end) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(settleLook):
			}
			continue
		}
		out := &siteapi.Checked{Site: s.cfg.Site, At: in.Status.Now, Looked: check.Looked(in), Findings: check.Findings(in)}
		if out.Findings == nil {
			out.Findings = []siteapi.Finding{}
		}
		return out, nil
	}
}

// known is all that this controller can learn of the mesh now.
func (s *Server) known(ctx context.Context) (in check.Input, err error) {
	if in.Status, err = s.meshStatus(ctx); err != nil {
		return in, err
	}
	if in.Weights, err = s.meshWeights(ctx); err != nil {
		return in, err
	}
	objects, err := s.list(ctx, siteapi.GetRequest{})
	if err != nil {
		return in, err
	}
	in.Objects = objects.Objects
	return in, nil
}

// disk is how full the file system of the data folder is, nil where it does not say.
func (s *Server) disk() *siteapi.Disk {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(s.cfg.Data, &fs); err != nil {
		return nil // check says that it is not known
	}
	size := uint64(fs.Bsize)
	return &siteapi.Disk{Path: s.cfg.Data, FreeBytes: fs.Bavail * size, TotalBytes: fs.Blocks * size}
}

// readCertificates lists those whose end would cut this site off: the hub's own, or
// that of the CA by which a leaf knows its hub.
func (s *Server) readCertificates() ([]siteapi.Certificate, error) {
	if s.authority != nil {
		cert, ca := s.authority.Ends()
		return []siteapi.Certificate{{Name: "the certificate that the hub shows to sites", Ends: cert}, {Name: "the hub's CA", Ends: ca}}, nil
	}
	if s.cfg.HubCA == "" {
		return nil, nil
	}
	data, err := os.ReadFile(s.cfg.HubCA)
	if err != nil {
		return nil, fmt.Errorf("controller: the hub's CA: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("controller: the hub's CA: %s holds no PEM certificate", s.cfg.HubCA)
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("controller: the hub's CA: %s: %w", s.cfg.HubCA, err)
	}
	return []siteapi.Certificate{{Name: "the hub's CA", Ends: ca.NotAfter}}, nil
}
