package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/chaining/agent"
	"github.com/meridian-mesh/meridian/chaining/datapath"
	"github.com/meridian-mesh/meridian/chaining/path"
	"github.com/meridian-mesh/meridian/chaining/ports"
	"github.com/meridian-mesh/meridian/chaining/soft"
)

// Values of --datapath.
const (
	datapathAuto = "auto" // the kernel where it can, else userspace
	datapathBPF  = "bpf"
	datapathSoft = "soft"
)

// openForwarder opens what forwards; close lets go of it.
func openForwarder(o *options, log *slog.Logger) (f agent.Forwarder, close func(), err error) {
	var integrity *soft.Integrity
	if o.integrityKeys != "" {
		if integrity, err = readKeys(o.integrityKeys, o.integrityWindow); err != nil {
			return nil, nil, fmt.Errorf("--integrity-keys: %w", err)
		}
	}
	missing := datapath.Missing()
	switch {
	case o.forwarder == datapathSoft:
	case integrity != nil:
		log.Info("chains are forwarded in userspace, where codes for other sites can be made")
	case len(missing) == 0:
		return openKernel(o, log)
	case o.forwarder == datapathBPF:
		return nil, nil, fmt.Errorf("this kernel, or this process, lacks what chains in the kernel need: %q; --datapath soft needs less", missing)
	default:
		log.Warn("chains are forwarded in userspace, at a fraction of the rate, and only while this process runs", "missing", missing)
	}
	s := ports.New(ports.Config{Flows: o.datapath.Flows, Integrity: integrity, Log: log, TakeOver: func() error { return detachKernel(o) }})
	return s, s.Close, nil
}

// readKeys reads the keys that sites share.
func readKeys(file string, window time.Duration) (*soft.Integrity, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var keys []soft.Key
	for i, line := range strings.Split(string(text), "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 2 {
			return nil, fmt.Errorf("%s:%d: has %d words, want an id and a secret in base64", file, i+1, len(fields))
		}
		secret, err := base64.StdEncoding.DecodeString(fields[1])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: the secret of key %q is not base64", file, i+1, fields[0])
		}
		keys = append(keys, soft.Key{ID: fields[0], Secret: secret})
	}
	in, err := soft.NewIntegrity(keys, window)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return in, nil
}

func openKernel(o *options, log *slog.Logger) (agent.Forwarder, func(), error) {
	if err := mountPins(o); err != nil {
		return nil, nil, err
	}
	dp, err := datapath.Open(o.datapath)
	if err != nil {
		return nil, nil, err
	}
	return &kernel{Datapath: dp, log: log}, dp.Close, nil
}

// kernel is the datapath, which takes over from one in userspace.
type kernel struct {
	*datapath.Datapath
	log      *slog.Logger
	tookOver bool
	border   bool // of the last table
}

// Apply implements agent.Forwarder.
func (k *kernel) Apply(t *path.Table) error {
	if err := k.Datapath.Apply(t); err != nil {
		return err
	}
	border := slices.ContainsFunc(t.Ports, func(p path.Port) bool { return p.Border })
	if border && !k.border {
		k.log.Warn("the node has a border to other sites, and the kernel drops what crosses it (drop reason integrity): codes are made in userspace, with --integrity-keys")
	}
	if k.border = border; k.tookOver {
		return nil
	}
	if err := datapath.Divert(nil); err != nil {
		return err
	}
	k.tookOver = true
	return nil
}

// detachKernel takes everything of the kernel's side away, where there is anything.
func detachKernel(o *options) error {
	if _, err := os.Stat(o.datapath.Pins); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return datapath.Detach(o.datapath)
}

// detach takes both sides' traces away.
func detach(o *options) error {
	return errors.Join(datapath.NewRedirector(o.datapath.Pins, "").Redirect(nil), detachKernel(o), datapath.Divert(nil))
}

// redirector is a Redirector that has its pins' file system mounted when it is first
// needed.
type redirector struct {
	*datapath.Redirector
	o       *options
	mounted bool
}

// Redirect implements agent.Redirector.
func (r *redirector) Redirect(w *datapath.Redirection) error {
	if w != nil && !r.mounted {
		if err := mountPins(r.o); err != nil {
			return err
		}
		r.mounted = true
	}
	return r.Redirector.Redirect(w)
}
