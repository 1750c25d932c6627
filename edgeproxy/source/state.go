package source

import (
	"context"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Source is where a node's configuration comes from.
type Source interface {
	// Start brings the first snapshot into force, from disk when the source does
	// not answer. An error means there is nothing to serve and nothing will come
	// by itself.
	Start(ctx context.Context) error
	// Run follows changes until ctx ends.
	Run(ctx context.Context) error
	// Reload asks for the source to be read again now. It never blocks.
	Reload()
	// State may be called at any time.
	State() State
	// History lists the configurations that were in force and are kept on disk, the
	// newest first. It may be called at any time.
	History() ([]Kept, error)
}

// State is what a source knows of the configuration in force.
type State struct {
	// Source is what --config named.
	Source string
	// Snapshot is in force; nil before the first.
	Snapshot *mesh.Snapshot
	// AppliedAt is when it came into force here.
	AppliedAt time.Time
	// Restored reports that it came from the last good copy on disk and nothing
	// newer was heard since.
	Restored bool
	// Reloads and Refusals count snapshots (or readings of a file) taken and
	// refused; Lower counts those refused for a lower generation, Tampered those that
	// are not as, or not by whom, they say.
	Reloads, Refusals, Lower, Tampered uint64
	// CheckedAt is when the source last gave anything, good or bad.
	CheckedAt time.Time
	// Refused is why the newest thing the source gave is not in force; nil when it is.
	Refused *Refusal
	// Unsaved says why the snapshot in force is not on disk, empty when it is or
	// no state folder was asked for.
	Unsaved string
	// Link is the way to the controller; nil for files.
	Link *Link
}

// Refusal is something newer that is not served.
type Refusal struct {
	At time.Time
	// Generation is nil for a file that could not be read.
	Generation *mesh.Generation
	// Why is one line; Faults has a line for each fault of a file
	// ("file:line:col: field: what").
	Why    string
	Faults []string
}

// Link is the state of the connection to the controller.
type Link struct {
	Connected bool
	// Since is when Connected last changed.
	Since time.Time
}
