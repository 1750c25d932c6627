package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/journal"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

func configCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show what a site serves, who changed it, and go back",
		Long: `Config is about the configuration as a whole: what the nodes of a site are to serve and
where it comes from, the changes that its controller remembers, and the way back to an
earlier state.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(configViewCommand(e), configHistoryCommand(e), configRollbackCommand(e))
	return cmd
}

func configViewCommand(e *env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "view",
		Short: "Show what the nodes of a site are to serve",
		Long: `View shows the objects of the site's newest snapshot, which is what its nodes serve once
they took it (meridian status): who owns each, the revision of the owner's bucket that
wrote it, when, and by whom where that is known. With -o yaml it prints the objects as
nodes get them: of a service that other sites cannot use, with the endpoints here only.

Objects that the controller knows and does not hand out are listed below, with why.`,
		Example: `  meridian --data ./north config view
  meridian --data ./north config view -o yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Config, error) { return c.Config(ctx) })
			if err != nil {
				return err
			}
			if output == outYAML {
				return viewDocuments(cmd.OutOrStdout(), c)
			}
			return print(cmd, output, c, func(w io.Writer) { viewTable(w, c) })
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func viewTable(w io.Writer, c *siteapi.Config) {
	if c.Generation == nil {
		fmt.Fprintf(w, "site %s serves nothing: nothing was ever configured\n", c.Site)
	} else {
		state := "its nodes can have it"
		if !c.Published {
			state = "not handed out yet"
		}
		fmt.Fprintf(w, "site %s, generation %s, made by %s, %s\n", c.Site, c.Generation, c.Origin, state)
	}
	if c.Problem != "" {
		fmt.Fprintf(w, "problem: %s\n", c.Problem)
	}
	if len(c.Objects) > 0 {
		fmt.Fprintln(w, "OBJECT\tOWNER\tREVISION\tCHANGED\tBY")
		for _, o := range c.Objects {
			fmt.Fprintf(w, "%s\n", servedRow(o))
		}
	}
	if len(c.Left) > 0 {
		fmt.Fprintln(w, "\nNOT SERVED HERE\tOWNER\tREVISION\tCHANGED\tBY\tWHY")
		for _, o := range c.Left {
			fmt.Fprintf(w, "%s\t%s\n", servedRow(o), o.Why)
		}
	}
}

func servedRow(o siteapi.Served) string {
	who := o.Who
	if who == "" && o.Cluster != "" {
		who = "Kubernetes cluster " + o.Cluster
	}
	if o.Revision == 0 {
		return fmt.Sprintf("%s\t%s\t-\t-\t-", o.Key, cmp.Or(o.Owner, "(nobody any more)"))
	}
	return fmt.Sprintf("%s\t%s\t%d\t%s\t%s", o.Key, o.Owner, o.Revision, clock(o.At), cmp.Or(who, "-"))
}

// clock prints when something was.
func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

func viewDocuments(w io.Writer, c *siteapi.Config) error {
	var buf bytes.Buffer
	for i, o := range c.Objects {
		text, err := asYAML(o.Object)
		if err != nil {
			return fmt.Errorf("%s: %w", o.Key, err)
		}
		if i > 0 {
			buf.WriteString("---\n")
		}
		fmt.Fprintf(&buf, "# owner %s, revision %d\n%s", o.Owner, o.Revision, text)
	}
	_, err := w.Write(buf.Bytes())
	return err
}

func configHistoryCommand(e *env) *cobra.Command {
	var output, object, owner, diff string
	var limit int
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List the changes of the configuration",
		Long: `History lists the changes that the controller remembers, the newest last: revision and
owner, when, who asked for it where that is known, and what became of which object.
Revisions count per owner. A controller knows who changed what it owns itself; of the
hub's changes a site sees what changed and when.

Remembered are the last 1000 changes of each owner, 2 MiB at most, over restarts; of
objects that a Kubernetes cluster brings, the last 200. A controller that was not
running sees of the changes of others only what came of them.`,
		Example: `  meridian --data ./hub config history
  meridian --data ./hub config history --object MeshService/default/shop -o wide
  meridian --data ./hub config history --diff 17`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := siteapi.ChangesRequest{Owner: owner}
			if object != "" {
				key, err := objectKey(object)
				if err != nil {
					return err
				}
				r.Key = key
			}
			if limit < 0 {
				return errUsage{fmt.Errorf("--limit %d: want how many, 0 for all", limit)}
			}
			var revision uint64
			if diff != "" {
				var err error
				if revision, err = parseRevision(diff); err != nil {
					return errUsage{fmt.Errorf("--diff %w", err)}
				}
			}
			h, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Changes, error) { return c.Changes(ctx, r) })
			if err != nil {
				return err
			}
			if owner != "" && len(h.Owners) == 0 {
				return fmt.Errorf("site %s follows no configuration of %s; without --owner all are listed", h.Site, owner)
			}
			if diff != "" {
				return showChange(cmd.OutOrStdout(), h, revision)
			}
			hidden := 0
			if limit > 0 && len(h.Changes) > limit {
				hidden = len(h.Changes) - limit
				h.Changes = h.Changes[hidden:]
			}
			return print(cmd, output, h, func(w io.Writer) { historyTable(w, h, hidden, output == outWide) })
		},
	}
	cmd.Flags().StringVar(&object, "object", "", "only this object: `KIND/NAMESPACE/NAME`, or KIND/NAME in namespace default")
	cmd.Flags().StringVar(&owner, "owner", "", "only what this `owner` changed: hub, or a site's name")
	cmd.Flags().StringVar(&diff, "diff", "", "show what changed at a `revision`, line by line")
	cmd.Flags().IntVar(&limit, "limit", 50, "show the newest `n` of them, 0 for all")
	outputFlag(cmd, &output, outWide)
	return cmd
}

// objectKey reads KIND/NAMESPACE/NAME or KIND/NAME.
func objectKey(text string) (mesh.Key, error) {
	parts := strings.Split(text, "/")
	if len(parts) == 2 {
		parts = []string{parts[0], mesh.DefaultNamespace, parts[1]}
	}
	if len(parts) != 3 || parts[1] == "" || parts[2] == "" {
		return mesh.Key{}, errUsage{fmt.Errorf("--object %q: want KIND/NAMESPACE/NAME, such as MeshService/default/shop", text)}
	}
	kind, err := kindOf(parts[0])
	return mesh.Key{Kind: kind, Namespace: parts[1], Name: parts[2]}, err
}

func parseRevision(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q: want a revision, a number as meridian config history lists them", text)
	}
	return n, nil
}

func historyTable(w io.Writer, h *siteapi.Changes, hidden int, wide bool) {
	head := "REVISION\tOWNER\tWHEN\tOBJECT\tCHANGE\tBY"
	if wide {
		head += "\tLINES"
	}
	fmt.Fprintln(w, head)
	for i := range h.Changes {
		c := &h.Changes[i]
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s", c.Revision, c.Owner, clock(c.At), c.Key, changeWord(c), cmp.Or(c.Who, "-"))
		if wide {
			fmt.Fprintf(w, "\t%s", changedLines(c))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
	if hidden > 0 {
		fmt.Fprintf(w, "%s before are not shown: --limit 0\n", count(hidden, "change"))
	}
	for _, o := range h.Owners {
		fmt.Fprintf(w, "%s: now at revision %d, known back to %d\n", o.Owner, o.Revision, o.Floor)
	}
}

// changeWord says what became of the object.
func changeWord(c *journal.Change) string {
	switch {
	case c.After == nil:
		return siteapi.Deleted
	case c.Gap:
		return "changed while nobody looked"
	case c.Before == nil:
		return siteapi.Created
	}
	return siteapi.Updated
}

// changedLines counts the lines that came and went.
func changedLines(c *journal.Change) string {
	text, err := changeDiff(c)
	if err != nil {
		return err.Error()
	}
	plus, minus := 0, 0
	for _, l := range lines(text) {
		switch l[0] {
		case '+':
			plus++
		case '-':
			minus++
		}
	}
	return fmt.Sprintf("+%d -%d", plus, minus)
}

func changeDiff(c *journal.Change) (string, error) { return objectDiff(c.Before, c.After) }

// objectDiff compares two objects as documents; nil is none.
func objectDiff(was, is json.RawMessage) (string, error) {
	texts := [2]string{}
	for i, data := range []json.RawMessage{was, is} {
		if len(data) == 0 {
			continue
		}
		text, err := asYAML(data)
		if err != nil {
			return "", err
		}
		texts[i] = text
	}
	return diffLines(texts[0], texts[1]), nil
}

// showChange prints what changed at a revision.
func showChange(w io.Writer, h *siteapi.Changes, revision uint64) error {
	found := false
	for i := range h.Changes {
		c := &h.Changes[i]
		if c.Revision != revision {
			continue
		}
		found = true
		text, err := changeDiff(c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Key, err)
		}
		by := ""
		if c.Who != "" {
			by = " by " + c.Who
		}
		fmt.Fprintf(w, "%s %s, owner %s, revision %d, %s%s\n", c.Key, changeWord(c), c.Owner, c.Revision, clock(c.At), by)
		if c.Gap {
			fmt.Fprintln(w, "what was there before is not known")
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	if found {
		return nil
	}
	var known []string
	for _, o := range h.Owners {
		known = append(known, fmt.Sprintf("%s is at %d and known back to %d", o.Owner, o.Revision, o.Floor))
	}
	return hinted{fmt.Errorf("no change of revision %d is remembered at site %s", revision, h.Site), strings.Join(known, "; ")}
}

func configRollbackCommand(e *env) *cobra.Command {
	var output string
	var dryRun, yes bool
	cmd := &cobra.Command{
		Use:   "rollback REVISION",
		Short: "Have the objects be again as they were at a revision",
		Long: `Rollback has every object that the asked controller owns be as it was at a revision of
its history: what was changed since is written as it was, what was deleted is created,
what was created is deleted. History goes on with new revisions, and the site's nodes
get one new generation. To undo the last change, give the revision before it.

What others own is theirs to change. Left as they are, and named, are objects that a
Kubernetes cluster brings, and whom the mesh believes (TrustBundle). Everything is
validated first, as by apply; all of it is done or nothing. The change is shown and has
to be confirmed, or --yes given; when somebody changes something meanwhile, nothing is
done.`,
		Example: `  meridian --data ./hub config rollback 16 --dry-run
  meridian --data ./hub config rollback 16 --yes`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			revision, err := parseRevision(args[0])
			if err != nil {
				return errUsage{err}
			}
			req := siteapi.RollbackRequest{Revision: revision, DryRun: true}
			plan, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.RolledBack, error) { return c.Rollback(ctx, req) })
			if err != nil {
				return err
			}
			if dryRun || len(plan.Faults) > 0 || len(plan.Objects) == 0 {
				return printRollback(cmd, output, revision, plan)
			}
			if !yes {
				if err := rollbackText(cmd.ErrOrStderr(), revision, plan); err != nil {
					return err
				}
				if err := confirm(cmd, fmt.Sprintf("Change %s at site %s?", count(len(plan.Objects), "object"), plan.Site)); err != nil {
					return err
				}
			}
			req.DryRun, req.At = false, plan.Revision
			done, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.RolledBack, error) { return c.Rollback(ctx, req) })
			if err != nil {
				return err
			}
			return printRollback(cmd, output, revision, done)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would happen, change nothing")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	outputFlag(cmd, &output)
	return cmd
}

// confirm asks whether to go on.
func confirm(cmd *cobra.Command, question string) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return errUsage{errors.New("nobody is there to ask: give --yes to change it, or --dry-run to look")}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [y/N] ", question)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was changed")
}

// printRollback prints what was or would be done, or the faults.
func printRollback(cmd *cobra.Command, format string, revision uint64, r *siteapi.RolledBack) error {
	if len(r.Faults) > 0 {
		return printResult(cmd, format, &r.Result)
	}
	printConditions(cmd, r.Conditions)
	if format != outTable {
		return print(cmd, format, r, nil)
	}
	return rollbackText(cmd.OutOrStdout(), revision, r)
}

func rollbackText(w io.Writer, revision uint64, r *siteapi.RolledBack) error {
	var buf bytes.Buffer
	for _, s := range r.Skipped {
		fmt.Fprintf(&buf, "%s stays as it is: %s\n", s.Key, s.Why)
	}
	for i, o := range r.Objects {
		action := ""
		if i < len(r.Changes) {
			action = r.Changes[i].Action
		}
		suffix := ""
		if r.DryRun {
			suffix = " (dry run)"
		}
		fmt.Fprintf(&buf, "%s %s%s\n", o.Key, action, suffix)
		text, err := objectDiff(o.Before, o.After)
		if err != nil {
			return fmt.Errorf("%s: %w", o.Key, err)
		}
		buf.WriteString(text)
	}
	if len(r.Objects) == 0 {
		fmt.Fprintf(&buf, "what %s owns is as it was at revision %d\n", r.Owner, revision)
	} else if !r.DryRun {
		fmt.Fprintf(&buf, "what %s owns is as it was at revision %d, as revision %d\n", r.Owner, revision, r.Revision)
	}
	_, err := w.Write(buf.Bytes())
	return err
}
