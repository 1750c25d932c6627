package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/chaining/path"
)

// chainCounters is what a node's chain agent says at /counters.
type chainCounters struct {
	Node string    `json:"node"`
	At   time.Time `json:"at"`
	Hops []struct {
		SPI     uint32 `json:"spi"`
		SI      uint8  `json:"si"`
		Packets uint64 `json:"packets"`
		Bytes   uint64 `json:"bytes"`
		Drops   uint64 `json:"drops"`
	} `json:"hops"`
	Drops  map[string]uint64  `json:"drops"`
	Probes map[string]float64 `json:"probesMs"`
}

// chainTop is what happened on a node between two readings of its counters.
type chainTop struct {
	Node    string    `json:"node"`
	At      time.Time `json:"at"`
	Seconds float64   `json:"seconds"`
	Hops    []topHop  `json:"hops"`
	// DropsPerSecond are packets by reason, of all paths and of none.
	DropsPerSecond map[string]float64 `json:"dropsPerSecond"`
}

type topHop struct {
	Chain            string  `json:"chain"`
	SPI              uint32  `json:"spi"`
	SI               uint8   `json:"si"`
	Back             bool    `json:"back,omitempty"`
	Node             string  `json:"node"`
	Function         string  `json:"function,omitempty"`
	Instance         string  `json:"instance,omitempty"`
	PacketsPerSecond float64 `json:"packetsPerSecond"`
	Mbps             float64 `json:"mbps"`
	DropsPerSecond   float64 `json:"dropsPerSecond"`
	Packets          uint64  `json:"packets"`
	Drops            uint64  `json:"drops"`
	// ProbeMS is the time in which the instance answers probes; absent where the node
	// does not probe it.
	ProbeMS *float64 `json:"probeMs,omitempty"`
}

func chainTopCommand(agent *string) *cobra.Command {
	var output string
	var interval time.Duration
	var count int
	cmd := &cobra.Command{
		Use:   "top [NAME]",
		Short: "Watch rates, drops and latencies of every hop",
		Long: `Top shows, for each hop of each path that the agent's node forwards, packets and bits
per second, drops, and the time in which the instance answers health probes. On a
terminal it goes on until it is interrupted; elsewhere it prints --count tables.`,
		Example: `  meridian chain top --agent http://127.0.0.1:15010
  meridian chain top web --count 5 --interval 2s -o json`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if interval < 10*time.Millisecond {
				return errUsage{fmt.Errorf("--interval %v: want at least 10ms", interval)}
			}
			live := columnsOf(cmd.OutOrStdout()) != nil && output == outTable
			if count == 0 && !live {
				count = 1
			}
			if count < 0 {
				return errUsage{errors.New("--count is below 0")}
			}
			before, err := getAgent[chainCounters](cmd.Context(), *agent, "/counters")
			if err != nil {
				return err
			}
			for n := 0; count == 0 || n < count; n++ {
				select {
				case <-cmd.Context().Done():
					return nil
				case <-time.After(interval):
				}
				s, err := askAgent(cmd.Context(), *agent)
				if err != nil {
					return err
				}
				only := ""
				if len(args) > 0 {
					c, err := s.find(args[0])
					if err != nil {
						return err
					}
					only = c.Chain
				}
				after, err := getAgent[chainCounters](cmd.Context(), *agent, "/counters")
				if err != nil {
					return err
				}
				t := topOf(s, before, after, only)
				before = after
				if live {
					fmt.Fprint(cmd.OutOrStdout(), "\x1b[H\x1b[2J") // home, and all clear
				}
				if err := print(cmd, output, t, t.print); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "`time` between two looks")
	cmd.Flags().IntVar(&count, "count", 0, "`number` of tables; 0: on a terminal until interrupted, elsewhere one")
	outputFlag(cmd, &output)
	return cmd
}

// topOf is what happened between two readings, of one chain or, for "", of all. A
// hop that was not there before counts from nothing.
func topOf(s *chainStatus, before, after *chainCounters, only string) *chainTop {
	t := &chainTop{Node: after.Node, At: after.At, Seconds: after.At.Sub(before.At).Seconds(), DropsPerSecond: map[string]float64{}, Hops: []topHop{}}
	rate := func(was, is uint64) float64 {
		if is < was || t.Seconds <= 0 {
			return 0 // the counters began anew in between
		}
		return float64(is-was) / t.Seconds
	}
	was := map[path.Hop]int{}
	for i, h := range before.Hops {
		was[path.Hop{SPI: h.SPI, SI: h.SI}] = i
	}
	for _, h := range after.Hops {
		p := s.path(h.SPI)
		if p == nil || only != "" && p.Chain != only {
			continue // of a path that is on its way out
		}
		out := topHop{Chain: p.Chain, SPI: h.SPI, SI: h.SI, Back: p.Reversed, Node: p.Egress, Packets: h.Packets, Drops: h.Drops}
		for i, stop := range p.Stops {
			if path.SI(i) == h.SI {
				out.Node, out.Function, out.Instance = stop.Node, stop.Function, stop.Instance
			}
		}
		if ms, ok := after.Probes[out.Instance]; ok {
			out.ProbeMS = &ms
		}
		var packets, bytes, drops uint64
		if i, ok := was[path.Hop{SPI: h.SPI, SI: h.SI}]; ok {
			packets, bytes, drops = before.Hops[i].Packets, before.Hops[i].Bytes, before.Hops[i].Drops
		}
		out.PacketsPerSecond = rate(packets, h.Packets)
		out.Mbps = rate(bytes, h.Bytes) * 8 / 1e6
		out.DropsPerSecond = rate(drops, h.Drops)
		t.Hops = append(t.Hops, out)
	}
	slices.SortStableFunc(t.Hops, func(a, b topHop) int {
		switch {
		case a.Chain != b.Chain:
			return strings.Compare(a.Chain, b.Chain)
		case a.SPI != b.SPI:
			return int(int64(a.SPI) - int64(b.SPI))
		}
		return int(b.SI) - int(a.SI)
	})
	for reason, n := range after.Drops {
		t.DropsPerSecond[reason] = rate(before.Drops[reason], n)
	}
	return t
}

func (t *chainTop) print(w io.Writer) {
	fmt.Fprintf(w, "node %s, %s, over %.1f s\n", t.Node, t.At.Format(time.TimeOnly), t.Seconds)
	fmt.Fprintln(w, "CHAIN\tPATH\tWAY\tSI\tNODE\tINSTANCE\tPACKETS/S\tMBIT/S\tDROPS/S\tPROBE")
	for _, h := range t.Hops {
		way, name, probe := "there", h.Instance, "-"
		if h.Back {
			way = "back"
		}
		switch {
		case h.Instance == "" && h.Function == "":
			name = "(end)"
		case h.Instance == "":
			name = "(classified again)"
		}
		if h.ProbeMS != nil {
			probe = millis(*h.ProbeMS)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%s\t%s\t%.0f\t%.2f\t%.0f\t%s\n", h.Chain, h.SPI, way, h.SI, h.Node, name, h.PacketsPerSecond, h.Mbps, h.DropsPerSecond, probe)
	}
	var drops []string
	for _, reason := range slices.Sorted(maps.Keys(t.DropsPerSecond)) {
		if n := t.DropsPerSecond[reason]; n > 0 {
			drops = append(drops, fmt.Sprintf("%s %.0f", reason, n))
		}
	}
	if len(drops) > 0 {
		fmt.Fprintf(w, "dropped per second: %s\n", strings.Join(drops, ", "))
	}
}
