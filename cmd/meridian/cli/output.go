package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Output formats.
const (
	outTable = "table"
	outJSON  = "json"
	outYAML  = "yaml"
	// Some verbs only.
	outWide = "wide"
	outName = "name"
	// jsonPath is followed by a template of paths.
	jsonPath = "jsonpath="
)

// outputFlag adds -o to a command, with formats that it has besides the usual ones.
func outputFlag(cmd *cobra.Command, dst *string, more ...string) {
	formats := append([]string{outTable, outJSON, outYAML}, more...)
	wanted := strings.Join(formats, ", ") + " or jsonpath={.path}"
	cmd.Flags().StringVarP(dst, "output", "o", outTable, wanted)
	completeFlag(cmd, "output", append(formats, jsonPath)...)
	inner := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if path, ok := strings.CutPrefix(*dst, jsonPath); ok {
			if _, err := parseTemplate(path); err != nil {
				return errUsage{fmt.Errorf("--output jsonpath: %w", err)}
			}
		} else if !slices.Contains(formats, *dst) {
			return errUsage{fmt.Errorf("--output %s: want %s", *dst, wanted)}
		}
		return inner(cmd, args)
	}
}

// completeFlag lets the shell complete a flag with fixed words.
func completeFlag(cmd *cobra.Command, flag string, words ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is not there: a mistake in this package
	}
}

// print writes v in a format; table does it for people.
func print(cmd *cobra.Command, format string, v any, table func(w io.Writer)) error {
	out := cmd.OutOrStdout()
	if path, ok := strings.CutPrefix(format, jsonPath); ok {
		t, err := parseTemplate(path)
		if err != nil {
			return err
		}
		return t.write(out, v)
	}
	switch format {
	case outJSON:
		data, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "%s\n", data)
		return err
	case outYAML:
		data, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = out.Write(data)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	table(w)
	return w.Flush()
}

// printFaults writes one fault a line to standard error.
func printFaults(cmd *cobra.Command, faults []mesh.Fault) {
	for _, f := range faults {
		fmt.Fprintln(cmd.ErrOrStderr(), f)
	}
}

func printConditions(cmd *cobra.Command, conditions []mesh.Condition) {
	for _, c := range conditions {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", c)
	}
}

// span prints a duration for a column.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

func millis(ms float64) string { return fmt.Sprintf("%.3gms", ms) }

func millisSpan(ms float64) string { return span(time.Duration(ms * float64(time.Millisecond))) }

func percent(share float64) string { return fmt.Sprintf("%.1f%%", 100*share) }
