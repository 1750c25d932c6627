package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

func editCommand(e *env) *cobra.Command {
	var namespace string
	cmd := &cobra.Command{
		Use:   "edit KIND NAME",
		Short: "Change an object in an editor",
		Long: `Edit opens an object as a document in $VISUAL, $EDITOR or vi, and applies it when the
editor ends. Where it is refused nothing is lost: the file is kept and named. An object
that somebody else changed meanwhile is not written over.`,
		Example: `  EDITOR=nano meridian --data ./hub edit MeshService shop`,
		Args:    cobra.ExactArgs(2), ValidArgsFunction: completeObject(e),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := keyOf(args, namespace)
			if err != nil {
				return err
			}
			was, err := documentOf(cmd, e, key)
			if err != nil {
				return err
			}
			path, is, err := edited(cmd, key, was)
			if err != nil {
				return err
			}
			if bytes.Equal(is, was) {
				fmt.Fprintf(cmd.OutOrStdout(), "%s is not changed\n", key)
				return os.Remove(path)
			}
			return applyEdited(cmd, e, key, path, was, is)
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", mesh.DefaultNamespace, "`namespace` of the object")
	return cmd
}

// keyOf is the object that two words name.
func keyOf(args []string, namespace string) (mesh.Key, error) {
	kind, err := kindOf(args[0])
	return mesh.Key{Kind: kind, Namespace: namespace, Name: args[1]}, err
}

// documentOf is an object in force as a document.
func documentOf(cmd *cobra.Command, e *env, key mesh.Key) ([]byte, error) {
	list, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Objects, error) {
		return c.Get(ctx, siteapi.GetRequest{Kind: key.Kind, Namespace: key.Namespace, Name: key.Name})
	})
	if err != nil {
		return nil, err
	}
	for _, o := range list.Objects {
		if !o.Shadowed {
			text, err := asYAML(o.Object)
			return []byte(text), err
		}
	}
	return nil, fmt.Errorf("there is no %s at site %s", key, list.Site)
}

// edited opens a document in the editor and returns the file and what is in it then.
func edited(cmd *cobra.Command, key mesh.Key, document []byte) (path string, is []byte, err error) {
	f, err := os.CreateTemp("", "meridian-"+key.Kind+"-"+key.Name+"-*.yaml")
	if err != nil {
		return "", nil, err
	}
	_, err = f.Write(document)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", nil, err
	}
	editor := cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"), "vi")
	// By the shell, as git does: it may have arguments.
	run := exec.CommandContext(cmd.Context(), "sh", "-c", editor+` "$1"`, "sh", f.Name())
	run.Stdin, run.Stdout, run.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	if err := run.Run(); err != nil {
		return "", nil, hinted{fmt.Errorf("editor %s: %w; nothing was changed, and %s is kept", editor, err, f.Name()), "set EDITOR to the editor of your choice"}
	}
	is, err = os.ReadFile(f.Name())
	return f.Name(), is, err
}

func applyEdited(cmd *cobra.Command, e *env, key mesh.Key, path string, was, is []byte) error {
	keep := "it is kept in " + path + ": correct it, then meridian apply -f " + path
	now, err := documentOf(cmd, e, key)
	if err != nil {
		return hinted{err, keep}
	}
	if !bytes.Equal(now, was) {
		return hinted{fmt.Errorf("somebody changed %s meanwhile; nothing was written over", key), keep}
	}
	objects, err := parse(cmd, []mesh.Source{{Name: path, Data: is}})
	if err != nil {
		return hinted{errors.New("nothing was changed"), keep}
	}
	for k := range objects.All() {
		if k != key {
			return hinted{fmt.Errorf("%s has become %s; nothing was changed: a name cannot be edited", key, k), keep}
		}
	}
	res, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Result, error) {
		return c.Apply(ctx, siteapi.ApplyRequest{Documents: []siteapi.Document{{Name: path, YAML: string(is)}}})
	})
	if err != nil {
		return hinted{err, keep}
	}
	if err := printResult(cmd, outTable, res); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "hint: %s\n", keep)
		return err
	}
	return os.Remove(path)
}
