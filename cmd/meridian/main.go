// Command meridian is the operator's view of a mesh and the way to change it.
package main

import (
	"os"

	"github.com/meridian-mesh/meridian/cmd/meridian/cli"
)

// version is set by the release build (-ldflags "-X main.version=...").
var version = "dev"

func main() { os.Exit(cli.Main(version, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
