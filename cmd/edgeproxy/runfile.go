package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/meridian-mesh/meridian/internal/durable"
)

// runFile is <state-dir>/run.json: where this process can be reached, for whoever
// let the kernel choose its ports. It is there while the process serves.
type runFile struct {
	PID       int           `json:"pid"`
	Version   string        `json:"version"`
	StartedAt time.Time     `json:"startedAt"`
	Site      string        `json:"site,omitempty"`
	Node      string        `json:"node"`
	Admin     string        `json:"admin"`
	Listeners []runListener `json:"listeners"`
}

type runListener struct {
	Gateway  string `json:"gateway"`
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Address  string `json:"address"`
}

func (n *node) runFilePath() string { return filepath.Join(n.opts.stateDir, "run.json") }

func (n *node) writeRunFile() error {
	if n.opts.stateDir == "" {
		return nil
	}
	r := runFile{
		PID: os.Getpid(), Version: version, StartedAt: n.started,
		Site: n.opts.site, Node: n.opts.node, Admin: n.adminAddress(), Listeners: []runListener{},
	}
	for _, l := range n.proxy.Listeners() {
		r.Listeners = append(r.Listeners, runListener{l.Gateway, l.Name, l.Protocol, l.Addr.String()})
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(n.runFilePath(), append(data, '\n'), 0o644)
}

func (n *node) removeRunFile() error {
	if n.opts.stateDir == "" {
		return nil
	}
	return os.Remove(n.runFilePath())
}
