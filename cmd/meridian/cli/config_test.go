package cli_test

import (
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/meridian-mesh/meridian/controller"
)

// revision FILE ARGS... runs meridian with the number in a file behind the others.
func revision(ts *testscript.TestScript, neg bool, args []string) {
	n := strings.TrimSpace(ts.ReadFile(args[0]))
	err := ts.Exec("meridian", append(args[1:], n)...)
	if (err != nil) != neg {
		ts.Fatalf("meridian %v %s: %v", args[1:], n, err)
	}
}

// controllers are those that run, by their data folders: what ends each.
var controllers sync.Map

// restart NAME ends the hub's controller and starts another on its folder.
func restart(ts *testscript.TestScript, _ bool, args []string) {
	end, ok := controllers.Load(ts.MkAbs(args[0]))
	if !ok {
		ts.Fatalf("no controller runs on %s", args[0])
	}
	end.(func())()
	start(ts, controller.Config{Hub: true}, args[0])
}
