package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/join"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/controller/store"
)

// place is what a person says of a site: where it is and where others reach it.
type place struct {
	location string
	gateways []string
}

func (p *place) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.location, "location", "", "where the site is: `longitude,latitude` in degrees (Melbourne: 144.9631,-37.8136)")
	cmd.Flags().StringArrayVar(&p.gateways, "gateway", nil, "`host:port` of the site's east-west listener, as other sites reach it; may be given again")
}

// document is the Site object, empty when nothing was said.
func (p place) document(site string) (string, error) {
	if p.location == "" {
		if len(p.gateways) > 0 {
			return "", errUsage{errors.New("--gateway needs --location as well")}
		}
		return "", nil
	}
	lon, lat, ok := strings.Cut(p.location, ",")
	x, errX := strconv.ParseFloat(strings.TrimSpace(lon), 64)
	y, errY := strconv.ParseFloat(strings.TrimSpace(lat), 64)
	if !ok || errX != nil || errY != nil {
		return "", errUsage{fmt.Errorf("--location %q: want longitude,latitude in degrees", p.location)}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: mesh.meridian.dev/v1alpha1\nkind: Site\nmetadata: {name: %q}\nspec:\n", site)
	fmt.Fprintf(&b, "  location: {type: Point, coordinates: [%s, %s]}   # longitude first (RFC 7946)\n",
		strconv.FormatFloat(x, 'f', -1, 64), strconv.FormatFloat(y, 'f', -1, 64))
	if len(p.gateways) > 0 {
		b.WriteString("  gateways:\n")
		for _, g := range p.gateways {
			fmt.Fprintf(&b, "  - {address: %q}\n", g)
		}
	}
	objects, err := mesh.ParseYAML("the site", []byte(b.String()))
	if err == nil {
		err = mesh.Validate(objects)
	}
	return b.String(), err
}

var siteName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func siteCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "site", Short: "Set a site up, take it out of service, or remove it from the mesh", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(siteInitCommand(e), siteRemoveCommand(e))
	cmd.AddCommand(siteTrafficCommands(e)...)
	return cmd
}

func siteInitCommand(e *env) *cobra.Command {
	var name string
	var where place
	f := join.SiteFile{Hub: true}
	alone := false
	cmd := &cobra.Command{
		Use:   "init --name NAME --location LON,LAT",
		Short: "Prepare the data folder of a mesh's first site",
		Long: `Init prepares the data folder (--data) of the first site of a mesh, which is its hub:
it owns the configuration of the mesh, and other sites join with tokens that it
makes. With --alone it is a site that no other can join.`,
		Example: `  meridian --data ./centre site init --name centre --location 144.9631,-37.8136 --leaf-listen 0.0.0.0:7422
  meridian --data ./solo site init --name solo --location 144.9631,-37.8136 --alone`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if e.data == "" {
				return errUsage{errors.New("which folder? Give --data DIR")}
			}
			if !siteName.MatchString(name) {
				return errUsage{fmt.Errorf("--name %q: want lower-case letters, digits and -, a letter or digit at both ends, at most 63", name)}
			}
			if where.location == "" {
				return errUsage{errors.New("where is the site? Give --location LON,LAT")}
			}
			document, err := where.document(name)
			if err != nil {
				return err
			}
			f.Site, f.Hub = name, !alone
			if alone && (f.LeafListen != "" || len(f.Advertise) > 0) {
				return errUsage{errors.New("--leaf-listen and --advertise are for a hub, not for --alone")}
			}
			if f.Hub && f.LeafListen == "" {
				f.LeafListen = "0.0.0.0:7422"
			}
			folder, err := store.Open(e.data)
			if err != nil {
				return err
			}
			defer folder.Close()
			if have, err := join.ReadSiteFile(e.data); err == nil {
				return fmt.Errorf("%s is the folder of site %s already: give another --data", e.data, have.Site)
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			doc := folder.Path("site.yaml")
			if err := store.WriteFile(doc, []byte(document), 0o644); err != nil {
				return err
			}
			f.Config = []string{doc}
			if err := f.Write(e.data); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "site %s is prepared in %s. Start it:\n  sitecontroller --data %s\n", name, e.data, e.data)
			if f.Hub {
				fmt.Fprintf(out, "then let a second site join:\n  meridian --data %s token create NAME\n", e.data)
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&name, "name", "", "`name` of the site")
	fl.BoolVar(&alone, "alone", false, "no hub: no other site can join")
	fl.StringVar(&f.LeafListen, "leaf-listen", "", "`address` where other sites connect (default 0.0.0.0:7422); they ask to join at the port after it")
	fl.StringArrayVar(&f.Advertise, "advertise", nil, "`host` under which other sites reach this one; may be given again (default: this machine's addresses)")
	fl.StringVar(&f.Listen, "listen", "", "`address` where this site's nodes connect (default: a free port on loopback)")
	fl.StringVar(&f.API, "api", "", "`address` of the API that this command line asks (default: a free port on loopback)")
	where.flags(cmd)
	return cmd
}

func siteRemoveCommand(e *env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "remove SITE",
		Short: "Take a site out of the mesh",
		Long: `Remove withdraws a site's key, ends its link, deletes its Site object and forgets what
was known of it. Ask the hub. The site's own proxies go on serving its users from
their last configuration; objects that still name the site are listed, because what
becomes of their endpoints is for you to say.`,
		Example: `  meridian --data ./centre site remove north`,
		Args:    cobra.ExactArgs(1), ValidArgsFunction: completeSite(e),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Removed, error) {
				return c.RemoveSite(ctx, siteapi.RemoveRequest{Site: args[0]})
			})
			if err != nil {
				return err
			}
			return print(cmd, output, r, func(w io.Writer) {
				fmt.Fprintf(w, "site %s is removed: %s\n", r.Site, strings.Join(r.Did, ", "))
				for _, k := range r.Left {
					fmt.Fprintf(w, "%s still names it\n", k)
				}
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func tokenCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "Make tokens that let sites join", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var output string
	var req siteapi.TokenRequest
	create := &cobra.Command{
		Use:   "create SITE",
		Short: "Make a token that lets one site join, once",
		Long: `Create asks the hub for a token. It has the hub's addresses, the hash of its CA by
which the new site knows it, and a key that works once; a newer token for the same
site replaces it. It is a secret until it was used: hand it over as one.`,
		Example: `  meridian --data ./centre token create north
  meridian --data ./centre token create north --host hub.example --ttl 24h`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			ttl, err := cmd.Flags().GetDuration("ttl")
			if err != nil {
				return err
			}
			if ttl <= 0 {
				return errUsage{fmt.Errorf("--ttl %s: want a time to live", ttl)}
			}
			req.Site, req.TTLSeconds = args[0], ttl.Seconds()
			t, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Token, error) { return c.CreateToken(ctx, req) })
			if err != nil {
				return err
			}
			if output == outTable {
				fmt.Fprintf(cmd.ErrOrStderr(), "for site %s, once, until %s, by way of %s:\n", t.Site, t.Expires.Local().Format("2006-01-02 15:04:05"), strings.Join(t.Hosts, ", "))
			}
			return print(cmd, output, t, func(w io.Writer) { fmt.Fprintln(w, t.Token) })
		},
	}
	create.Flags().Duration("ttl", defaultTokenTTL, "how long the token is good for")
	create.Flags().StringArrayVar(&req.Hosts, "host", nil, "`host` at which the new site reaches the hub; may be given again (default: what the hub advertises)")
	outputFlag(create, &output)
	cmd.AddCommand(create)
	return cmd
}

// absolute is for messages that outlive this process's folder.
func absolute(dir string) string {
	if a, err := filepath.Abs(dir); err == nil {
		return a
	}
	return dir
}
