package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/meridian-mesh/meridian/chaining/agent"
	"github.com/meridian-mesh/meridian/chaining/datapath"
	"github.com/meridian-mesh/meridian/chaining/path"
	"github.com/meridian-mesh/meridian/chaining/ports"
)

// Values of --datapath.
const (
	datapathAuto = "auto" // the kernel where it can, else userspace
	datapathBPF  = "bpf"
	datapathSoft = "soft"
)

// openForwarder opens what forwards; close lets go of it.
func openForwarder(o *options, log *slog.Logger) (f agent.Forwarder, close func(), err error) {
	missing := datapath.Missing()
	switch {
	case o.forwarder == datapathSoft:
	case len(missing) == 0:
		return openKernel(o)
	case o.forwarder == datapathBPF:
		return nil, nil, fmt.Errorf("this kernel, or this process, lacks what chains in the kernel need: %q; --datapath soft needs less", missing)
	default:
		log.Warn("chains are forwarded in userspace, at a fraction of the rate, and only while this process runs", "missing", missing)
	}
	s := ports.New(ports.Config{Flows: o.datapath.Flows, Log: log, TakeOver: func() error { return detachKernel(o) }})
	return s, s.Close, nil
}

func openKernel(o *options) (agent.Forwarder, func(), error) {
	if err := mountPins(o); err != nil {
		return nil, nil, err
	}
	dp, err := datapath.Open(o.datapath)
	if err != nil {
		return nil, nil, err
	}
	return &kernel{Datapath: dp}, dp.Close, nil
}

// kernel is the datapath, which takes over from one in userspace.
type kernel struct {
	*datapath.Datapath
	tookOver bool
}

// Apply implements agent.Forwarder.
func (k *kernel) Apply(t *path.Table) error {
	if err := k.Datapath.Apply(t); err != nil || k.tookOver {
		return err
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
func detach(o *options) error { return errors.Join(detachKernel(o), datapath.Divert(nil)) }
