package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/internal/durable"
)

// kept is the file of contexts: where controllers are, under names.
type kept struct {
	Current  string                `json:"current,omitempty"`
	Contexts map[string]controller `json:"contexts,omitempty"`
}

// controller is where one is: one of the two.
type controller struct {
	Server string `json:"server,omitempty"`
	Data   string `json:"data,omitempty"`
}

// contextsFile is where contexts are kept.
func contextsFile() (string, error) {
	if path := os.Getenv("MERIDIAN_CONFIG"); path != "" {
		return path, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", hinted{fmt.Errorf("where contexts are kept: %w", err), "set MERIDIAN_CONFIG to a file"}
	}
	return filepath.Join(dir, "meridian", "contexts.yaml"), nil
}

// readContexts reads the file; one that is not there is empty.
func readContexts() (kept, error) {
	k := kept{Contexts: map[string]controller{}}
	path, err := contextsFile()
	if err != nil {
		return k, err
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return k, err
	}
	if err := yaml.UnmarshalStrict(data, &k); err != nil {
		return k, hinted{fmt.Errorf("%s: %w", path, err), "correct it, or remove it and set the contexts again"}
	}
	if k.Contexts == nil {
		k.Contexts = map[string]controller{}
	}
	return k, nil
}

func (k kept) write() error {
	path, err := contextsFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	data, err := yaml.Marshal(k)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, data, 0o600)
}

// contextNamed is the context of a name, of the current one for none; nothing is
// current where none was chosen.
func contextNamed(name string) (controller, error) {
	k, err := readContexts()
	if err != nil {
		return controller{}, err
	}
	if name == "" && k.Current == "" {
		return controller{}, nil
	}
	if name == "" {
		name = k.Current
	}
	c, ok := k.Contexts[name]
	if !ok {
		return controller{}, k.unknown(name)
	}
	return c, nil
}

func (k kept) unknown(name string) error {
	if len(k.Contexts) == 0 {
		return hinted{fmt.Errorf("there is no context %s", name), "make one: meridian context set " + name + " --data DIR"}
	}
	return fmt.Errorf("there is no context %s; there are: %s", name, strings.Join(slices.Sorted(maps.Keys(k.Contexts)), ", "))
}

func contextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "context", Short: "Keep where controllers are under names, and switch between them",
		Long: `Context keeps the addresses of controllers under names, so that they need not be given
each time. Verbs ask --server or --data, else their variables, else --context, else the
current context. They are kept in contexts.yaml in your configuration folder, or in the
file that MERIDIAN_CONFIG names.`,
		Example: `  meridian context set hub --server http://127.0.0.1:7470
  meridian context use hub
  meridian context list`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(contextListCommand(), contextSetCommand(), contextUseCommand(), contextDeleteCommand())
	return cmd
}

// completeContext completes the name of a context.
func completeContext(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	k, err := readContexts()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return slices.Sorted(maps.Keys(k.Contexts)), cobra.ShellCompDirectiveNoFileComp
}

func contextListCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "list", Short: "List contexts, the current one with a star", Example: "  meridian context list",
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, err := readContexts()
			if err != nil {
				return err
			}
			return print(cmd, output, k, func(w io.Writer) {
				fmt.Fprintln(w, "CURRENT\tNAME\tCONTROLLER")
				for _, name := range slices.Sorted(maps.Keys(k.Contexts)) {
					star := ""
					if name == k.Current {
						star = "*"
					}
					c := k.Contexts[name]
					at := c.Server
					if c.Data != "" {
						at = "data folder " + c.Data
					}
					fmt.Fprintf(w, "%s\t%s\t%s\n", star, name, at)
				}
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func contextSetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "set NAME (--server ADDRESS | --data DIR)", Short: "Keep where a controller is under a name",
		Example: "  meridian context set north --data /var/lib/meridian/north",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: completeContext,
		RunE: func(cmd *cobra.Command, args []string) error {
			// The flags, not their variables: what is kept is what was said.
			flags := cmd.InheritedFlags()
			c := controller{}
			if flags.Changed("server") {
				c.Server = flags.Lookup("server").Value.String()
			}
			if flags.Changed("data") {
				c.Data = absolute(flags.Lookup("data").Value.String())
			}
			switch {
			case (c.Server == "") == (c.Data == ""):
				return errUsage{errors.New("where is the controller? Give --server http://host:port or --data DIR, one of the two")}
			case !siteName.MatchString(args[0]):
				return errUsage{fmt.Errorf("name %q: want lower-case letters, digits and -, a letter or digit at both ends", args[0])}
			case c.Server != "":
				if _, err := siteapi.Dial(c.Server); err != nil {
					return errUsage{err}
				}
			}
			k, err := readContexts()
			if err != nil {
				return err
			}
			k.Contexts[args[0]] = c
			if k.Current == "" {
				k.Current = args[0]
			}
			if err := k.write(); err != nil {
				return err
			}
			return sayCurrent(cmd, k, "context "+args[0]+" is kept")
		},
	}
}

func sayCurrent(cmd *cobra.Command, k kept, what string) error {
	var b bytes.Buffer
	b.WriteString(what)
	if k.Current != "" {
		b.WriteString("; the current one is " + k.Current)
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), &b)
	return err
}

func contextUseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Make a context the current one", Example: "  meridian context use hub",
		Args: cobra.ExactArgs(1), ValidArgsFunction: completeContext,
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := readContexts()
			if err != nil {
				return err
			}
			if _, ok := k.Contexts[args[0]]; !ok {
				return k.unknown(args[0])
			}
			k.Current = args[0]
			if err := k.write(); err != nil {
				return err
			}
			return sayCurrent(cmd, k, "done")
		},
	}
}

func contextDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Forget a context", Example: "  meridian context delete hub",
		Args: cobra.ExactArgs(1), ValidArgsFunction: completeContext,
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := readContexts()
			if err != nil {
				return err
			}
			if _, ok := k.Contexts[args[0]]; !ok {
				return k.unknown(args[0])
			}
			delete(k.Contexts, args[0])
			if k.Current == args[0] {
				k.Current = ""
			}
			if err := k.write(); err != nil {
				return err
			}
			return sayCurrent(cmd, k, "context "+args[0]+" is forgotten")
		},
	}
}
