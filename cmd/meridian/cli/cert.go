package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/controller/check"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

func certCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Show, check and rotate the identities of the mesh",
		Long: `Cert is for the certificates by which sites and proxies know each other: the mesh's
roots at the hub, an issuer at each site, a certificate at each proxy. They are
renewed by themselves.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(certShowCommand(e), certCheckCommand(e), certRotateCommand(e))
	return cmd
}

func certShowCommand(e *env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "List the roots, issuers and proxies' certificates of the mesh",
		Long: `Show lists the certificates of the whole mesh with their serial numbers and ends, as each
site's controller says. LEFT is how long each is still valid, RENEWS when it is
replaced by itself. What is not known is shown as "-".`,
		Example: `  meridian --data ./hub cert show
  meridian --data ./hub cert show -o json`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Status, error) { return c.Status(ctx) })
			if err != nil {
				return err
			}
			out := certificatesOf(st)
			return print(cmd, output, out, func(w io.Writer) { certTable(w, out) })
		},
	}
	outputFlag(cmd, &output)
	watchFlag(cmd)
	return cmd
}

// certificates are those of a mesh as one controller knows them.
type certificates struct {
	Site        string                      `json:"site"`
	TrustDomain string                      `json:"trustDomain,omitempty"`
	Denied      int                         `json:"denied,omitempty"`
	Roots       []siteapi.IssuedCertificate `json:"roots"`
	Sites       []siteCertificates          `json:"sites"`
	Now         time.Time                   `json:"now"`
}

type siteCertificates struct {
	Site    string                      `json:"site"`
	Issuer  *siteapi.IssuedCertificate  `json:"issuer,omitempty"`
	Problem string                      `json:"problem,omitempty"`
	Nodes   []siteapi.IssuedCertificate `json:"nodes"`
	// Workloads are those that other sites see in the place of a node.
	Workloads []siteapi.IssuedCertificate `json:"workloads,omitempty"`
}

func certificatesOf(st *siteapi.Status) *certificates {
	out := &certificates{Site: st.Self.Site, Now: st.Now, Roots: []siteapi.IssuedCertificate{}, Sites: []siteCertificates{}}
	if i := st.Self.Identities; i != nil {
		out.TrustDomain, out.Denied, out.Roots = i.TrustDomain, i.Denied, i.Roots
	}
	add := func(site string, s *siteapi.SiteStatus, silence string) {
		row := siteCertificates{Site: site, Problem: silence, Nodes: []siteapi.IssuedCertificate{}}
		switch {
		case s == nil:
		case s.Identities == nil:
			row.Problem = "it has no identities: it is alone, on an external NATS, or of a version before"
		default:
			row.Issuer, row.Problem = s.Identities.Issuer, s.Identities.Problem
			for _, n := range s.Nodes {
				x := siteapi.IssuedCertificate{Name: n.Node}
				if n.Identity != nil {
					x = siteapi.IssuedCertificate{Name: n.Identity.ID, Serial: n.Identity.Serial, NotAfter: n.Identity.NotAfter}
				}
				row.Nodes = append(row.Nodes, x)
				if w := n.Workload; w != nil {
					x := siteapi.IssuedCertificate{Name: w.Name + " at " + n.Node}
					if i := w.Identity; i != nil {
						x = siteapi.IssuedCertificate{Name: i.ID, Serial: i.Serial, NotAfter: i.NotAfter}
					}
					row.Workloads = append(row.Workloads, x)
				}
			}
		}
		out.Sites = append(out.Sites, row)
	}
	add(st.Self.Site, &st.Self, "")
	for i := range st.Peer {
		p := &st.Peer[i]
		silence := ""
		if p.Said == nil {
			silence = "its controller does not answer"
			if p.Silence != "" {
				silence += ": " + p.Silence
			}
		}
		add(p.Site, p.Said, silence)
	}
	return out
}

func certTable(w io.Writer, c *certificates) {
	if c.TrustDomain == "" {
		fmt.Fprintf(w, "seen from site %s: the mesh has no identities\n\n", c.Site)
	} else {
		fmt.Fprintf(w, "seen from site %s: trust domain %s, %s denied\n\n", c.Site, c.TrustDomain, count(c.Denied, "certificate"))
	}
	fmt.Fprintln(w, "WHAT\tNAME\tSERIAL\tLEFT\tRENEWS")
	line := func(what string, x *siteapi.IssuedCertificate) {
		left, renews, serial := "-", "-", x.Serial
		if !x.NotAfter.IsZero() {
			left = leftOf(x.NotAfter.Sub(c.Now))
		}
		if !x.RenewAt.IsZero() {
			renews = x.RenewAt.Local().Format(time.DateTime)
		}
		if serial == "" {
			serial = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", what, x.Name, serial, left, renews)
	}
	for i := range c.Roots {
		what := "root"
		if i > 0 {
			what = "root (replaced)"
		}
		line(what, &c.Roots[i])
	}
	for i := range c.Sites {
		s := &c.Sites[i]
		if s.Issuer != nil {
			line("issuer", s.Issuer)
		} else {
			line("issuer", &siteapi.IssuedCertificate{Name: "site " + s.Site})
		}
		for k := range s.Nodes {
			line("proxy", &s.Nodes[k])
		}
		for k := range s.Workloads {
			line("workload", &s.Workloads[k])
		}
	}
	for _, s := range c.Sites {
		if s.Problem != "" {
			fmt.Fprintf(w, "\nsite %s: %s\n", s.Site, s.Problem)
		}
	}
}

// leftOf says how long a certificate is still valid, coarsely.
func leftOf(d time.Duration) string {
	switch {
	case d <= 0:
		return "ended"
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.Round(time.Minute).String()
}

func certCheckCommand(e *env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for certificates that end soon, over the whole mesh",
		Long: `Check lists what meridian check finds of certificates alone: roots, issuers and proxies'
certificates that have ended, end soon or were not renewed in time, and proxies without
one. The exit code is 0 when nothing was found and 1 when something was.`,
		Example: `  meridian --data ./hub cert check`,
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Checked, error) { return c.Check(ctx) })
			if err != nil {
				return err
			}
			// A site that says nothing of itself is none whose certificates are in order.
			about := []string{check.CodeCertificate, check.CodeIdentity, "site-unreachable", "controller-silent"}
			r.Findings = slices.DeleteFunc(r.Findings, func(f siteapi.Finding) bool { return !slices.Contains(about, f.Code) })
			if err := print(cmd, output, r, func(w io.Writer) { checkTable(w, r) }); err != nil {
				return err
			}
			if len(r.Findings) > 0 {
				return errRefused
			}
			return nil
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func certRotateCommand(e *env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "rotate root|issuer",
		Short: "Replace the mesh's root, or a site's issuer, now",
		Long: `Rotate makes a new key and certificate. "root" is for the hub: sites get issuers signed by
the new root by themselves, and the old root is believed for as long as what it
signed can live, by sites that are cut off too. "issuer" is for the site that is
asked: its proxies have certificates of the new issuer when theirs are renewed.
Nothing restarts and no request fails.`,
		Example: `  meridian --data ./hub cert rotate root
  meridian --data ./north cert rotate issuer`,
		Args:      cobra.ExactArgs(1),
		ValidArgs: []string{siteapi.RotateRoot, siteapi.RotateIssuer},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{siteapi.RotateRoot, siteapi.RotateIssuer}, args[0]) {
				return errUsage{fmt.Errorf("%q cannot be rotated: want %s or %s", args[0], siteapi.RotateRoot, siteapi.RotateIssuer)}
			}
			r, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Rotated, error) {
				return c.Rotate(ctx, siteapi.RotateRequest{What: args[0]})
			})
			if err != nil {
				return err
			}
			return print(cmd, output, r, func(w io.Writer) {
				fmt.Fprintf(w, "site %s: new %s %s, serial %s, until %s\n", r.Site, r.What, r.New.Name, r.New.Serial, r.New.NotAfter.Local().Format(time.DateTime))
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}
