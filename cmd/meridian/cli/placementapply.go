package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/scheduler/cluster"
	"github.com/meridian-mesh/meridian/scheduler/placement"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

// kubeFlags say which cluster, and how it is read.
type kubeFlags struct {
	kubeconfig, context string
	cluster.Options
}

func (k *kubeFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&k.kubeconfig, "kubeconfig", "", "the cluster's kubeconfig, a `file`; by default those of KUBECONFIG, else ~/.kube/config, else the pod's service account")
	f.StringVar(&k.context, "kube-context", "", "the kubeconfig's context, by `name`; by default its current one")
	f.StringVar(&k.Cluster, "cluster", "", "the cluster's `name` in the traffic matrix, as the scheduler's args and the bridge have it")
	f.StringVar(&k.SiteLabel, "site-label", "mesh.meridian.dev/site", "the node label that names its site, else its zone")
	f.StringVar(&k.Scheduler, "scheduler", "meridian-scheduler", "the scheduler that places pods by traffic, by `name`; pods of others stay")
}

// open finds the cluster as kubectl does.
func (k *kubeFlags) open() (*cluster.Cluster, error) {
	c, err := cluster.Open(k.kubeconfig, k.context)
	if errors.Is(err, cluster.ErrNoKubeconfig) || errors.Is(err, fs.ErrNotExist) {
		return nil, hinted{err, "name it with --kubeconfig"}
	}
	return c, err
}

func placementApply(e *env) *cobra.Command {
	files := placementFiles{env: e}
	var kube kubeFlags
	var o placement.AdviceOptions
	var yes bool
	var within time.Duration
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Move the pods of a Kubernetes cluster that are worth it, one at a time",
		Long: `Apply reads a cluster's nodes and pods, asks for advice (see advise), and evicts what
is worth moving, one pod at a time. Its controller makes a new one, and the scheduler,
which has to be meridian-scheduler, places it by traffic. PodDisruptionBudgets are
heeded: the API server refuses an eviction that they do not allow, and apply waits.

It goes on only when as many pods of the controller are ready as before. It stops at
the first that is not within --within, or that came back to the node it left, and says
why. Without --yes nothing is evicted: it says what would be, and whether budgets would
allow it now.

Pods stay that an eviction would lose or could not move: those without a controller, of
DaemonSets, Jobs, kube-system or another scheduler, and those bound to nodes by a
selector, an affinity or a volume.`,
		Example: `  meridian --server http://127.0.0.1:7470 placement apply
  meridian placement apply --kubeconfig edge.kubeconfig --cluster edge --max-moves 3 --yes`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkAdvice(&o); err != nil {
				return err
			}
			if within <= 0 {
				return errUsage{fmt.Errorf("--within %s: want how long a move may take", within)}
			}
			c, err := kube.open()
			if err != nil {
				return err
			}
			seen, err := files.traffic(cmd)
			if err != nil {
				return err
			}
			inv, pinned, err := c.Inventory(cmd.Context(), kube.Options)
			if err != nil {
				return err
			}
			if len(inv.Pods) == 0 {
				return fmt.Errorf("cluster %s: no pod runs", c.Name)
			}
			if len(pinned) == len(inv.Pods) {
				return hinted{fmt.Errorf("cluster %s: none of %d pods may be moved: of %s, for instance, %s", c.Name, len(inv.Pods), inv.Pods[0].Name, pinned[inv.Pods[0].Name]),
					"which scheduler places pods by traffic? --scheduler names it"}
			}
			p, at, err := problemOf(cmd, inv, seen, traffic.Steady)
			if err != nil {
				return err
			}
			a, err := placement.Advise(p, at, o)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if len(a.Moves) == 0 {
				_, err := fmt.Fprintf(out, "nothing to move: %s\n", a.Why)
				return err
			}
			moves := make([]adviseMove, len(a.Moves))
			nodes := p.Delays.Nodes()
			for i, m := range a.Moves {
				moves[i] = adviseMove{p.Units[m.Unit].Name, nodes[m.From], nodes[m.To], m.Gain, m.Cost, m.Reason}
			}
			if !yes {
				return wouldMove(cmd, c, moves)
			}
			return moveAll(cmd, c, moves, within)
		},
	}
	fs := cmd.Flags()
	kube.flags(cmd)
	files.trafficFlags(cmd)
	adviceFlags(cmd, &o)
	fs.BoolVar(&yes, "yes", false, "evict; without it nothing is changed")
	fs.DurationVar(&within, "within", 5*time.Minute, "how long one move may take, until budgets allow it and the new pod is ready")
	return cmd
}

// wouldMove says what apply would do, and whether budgets would allow it now.
func wouldMove(cmd *cobra.Command, c *cluster.Cluster, moves []adviseMove) error {
	for i, m := range moves {
		why, err := c.May(cmd.Context(), m.Pod)
		if err != nil {
			return err
		}
		if why == "" {
			why = "allowed now"
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%d/%d would evict %s on %s, better on %s: saves %s, %s; %s\n", i+1, len(moves), m.Pod, m.From, m.To, signedBytes(m.Gain), m.Reason, why)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "nothing was changed: with --yes they are evicted, one at a time\n")
	return err
}

// moveAll evicts pod after pod and stops at the first that does not come back well.
func moveAll(cmd *cobra.Command, c *cluster.Cluster, moves []adviseMove, within time.Duration) error {
	out := cmd.OutOrStdout()
	for i, m := range moves {
		fmt.Fprintf(out, "%d/%d evicting %s on %s, better on %s: %s\n", i+1, len(moves), m.Pod, m.From, m.To, m.Reason)
		done, err := c.Move(cmd.Context(), m.Pod, cluster.MoveOptions{Within: within, Waiting: func(reason string) { fmt.Fprintf(out, "%d/%d waiting: %s\n", i+1, len(moves), reason) }})
		if err != nil {
			return stopped(i, len(moves), err)
		}
		fmt.Fprintf(out, "%d/%d %s is ready on %s after %s%s\n", i+1, len(moves), done.Pod, done.Node, done.Took.Round(100*time.Millisecond), elsewhere(done.Node, m.To))
		if done.Node == m.From {
			return stopped(i+1, len(moves), hinted{fmt.Errorf("%s came back to the node that %s had left", done.Pod, m.Pod),
				"its scheduler may have other reasons, or no traffic: look at the pod's events"})
		}
	}
	_, err := fmt.Fprintf(out, "done: %d moved\n", len(moves))
	return err
}

func elsewhere(is, want string) string {
	if is == want {
		return ""
	}
	return ", not on " + want + ": the scheduler had other reasons as well"
}

// stopped says how far it went.
func stopped(done, of int, err error) error {
	var h hinted
	if errors.As(err, &h) {
		return hinted{fmt.Errorf("stopped after %d of %d moves: %w", done, of, h.error), h.hint}
	}
	return fmt.Errorf("stopped after %d of %d moves: %w", done, of, err)
}
