package kube

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/internal/durable"
)

// keepFiles is how long a certificate stays that nobody names any more: proxies that
// start with an older snapshot need it.
const keepFiles = 24 * time.Hour

// writeFiles writes certificates and keys that are not there yet. Their names change
// with their content.
func (b *Bridge) writeFiles(files map[string][]byte) error {
	for path, content := range files {
		if _, err := os.Stat(path); err == nil {
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("kube: certificate: %w", err)
		}
		if err := durable.WriteFile(path, content, 0o600); err != nil {
			return fmt.Errorf("kube: write certificate: %w", err)
		}
	}
	return nil
}

// sweepFiles removes certificates that nobody has named for a day. One in use is
// touched, so that its age says when it last was.
func (b *Bridge) sweepFiles(used map[string][]byte) {
	if b.cfg.Certificates == "" {
		return
	}
	entries, err := os.ReadDir(b.cfg.Certificates)
	if err != nil {
		b.say("certificates", err)
		return
	}
	now := time.Now()
	for _, e := range entries {
		path := b.cfg.Certificates + "/" + e.Name()
		info, err := e.Info()
		if ext := filepath.Ext(path); err != nil || ext != ".crt" && ext != ".key" {
			continue
		}
		age := now.Sub(info.ModTime())
		switch _, named := used[path]; {
		case named && age > keepFiles/24:
			b.say("certificates", os.Chtimes(path, now, now))
		case !named && age > keepFiles:
			b.say("certificates", os.Remove(path))
		}
	}
}

// quieter passes on of client-go's log what is worth a line: the bridge says itself what
// is wrong with a watch, once.
type quieter struct{ slog.Handler }

// Enabled is part of slog.Handler.
func (q quieter) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelError && q.Handler.Enabled(ctx, l)
}

// Handle is part of slog.Handler.
func (q quieter) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "Failed to watch") {
		return nil
	}
	return q.Handler.Handle(ctx, r)
}
