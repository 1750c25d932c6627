package main

import (
	"runtime"
	"runtime/debug"

	"github.com/meridian-mesh/meridian/edgeproxy/admin"
)

// version is set by the release build (-ldflags "-X main.version=...").
var version = "dev"

// build describes this program.
func build() admin.Build {
	b := admin.Build{Version: version, GoVersion: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Revision = s.Value
			}
		}
	}
	return b
}
