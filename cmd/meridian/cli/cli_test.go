package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"sigs.k8s.io/yaml"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/cmd/meridian/cli"
	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/join"
	"github.com/meridian-mesh/meridian/controller/store"
	"github.com/meridian-mesh/meridian/internal/bus"
	"github.com/meridian-mesh/meridian/internal/logring"
)

func TestMain(m *testing.M) {
	testscript.Main(tidy{m}, map[string]func(){
		"meridian": func() { os.Exit(cli.Main("v0.0.0-test", os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// tidy removes what the tests built.
type tidy struct{ *testing.M }

func (m tidy) Run() int {
	code := m.M.Run()
	if built != "" {
		_ = os.RemoveAll(built) // a leftover in the temporary folder fails no test
	}
	return code
}

// TestScripts runs each verb as a user does, with good and bad input, against
// real controllers: `hub NAME` and `leaf NAME` start one on the folder $WORK/NAME.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("MERIDIAN_SERVER", "")
			env.Setenv("MERIDIAN_DATA", "")
			env.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: with(meshCommands(), map[string]func(*testscript.TestScript, bool, []string){
			"hub": func(ts *testscript.TestScript, _ bool, args []string) {
				start(ts, controller.Config{Hub: true}, args[0])
			},
			"leaf":  func(ts *testscript.TestScript, _ bool, args []string) { start(ts, leaf(ts, args[0]), args[0]) },
			"node":  node,
			"chain": runChain,
			// exit N command... runs a command that must end with code N.
			"exit":  exit,
			"json":  wellFormed,
			"until": until,
			"fails": fails,
		}),
	})
}

func with(a, b map[string]func(*testscript.TestScript, bool, []string)) map[string]func(*testscript.TestScript, bool, []string) {
	maps.Copy(a, b)
	return a
}

// leaf joins a site to the hub with the command line and returns its configuration.
func leaf(ts *testscript.TestScript, site string) controller.Config {
	var token, out, errs bytes.Buffer
	if code := cli.Main("test", []string{"--data", ts.MkAbs("hub"), "token", "create", site}, nil, &token, &errs); code != 0 {
		ts.Fatalf("token create: %s", &errs)
	}
	dir := ts.MkAbs(site)
	if code := cli.Main("test", []string{"--data", dir, "join", strings.TrimSpace(token.String()), "--prepare"}, nil, &out, &errs); code != 0 {
		ts.Fatalf("join: %s", &errs)
	}
	f, err := join.ReadSiteFile(dir)
	ts.Check(err)
	return controller.Config{HubURLs: f.HubURLs, HubCA: f.HubCA, HubKey: f.HubKey}
}

func start(ts *testscript.TestScript, cfg controller.Config, name string) {
	cfg.Site, cfg.Data, cfg.Version = name, ts.MkAbs(name), "test"
	if cfg.Hub {
		cfg.Site = "centre"
	}
	run(ts, cfg)
}

// run runs a controller until the script ends, and returns when it serves.
func run(ts *testscript.TestScript, cfg controller.Config) {
	// A process that another script forks holds the folder's lock with us until it
	// has become the program it runs: for that moment the folder is in use.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		said := logring.New(logring.Bytes)
		srv, err := controller.New(cfg, controller.Deps{Log: slog.New(slog.NewTextHandler(said, nil)), Said: said})
		ts.Check(err)
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- srv.Run(ctx) }()
		select {
		case <-srv.Ready():
			end := sync.OnceFunc(func() {
				stop()
				<-ended
			})
			controllers.Store(cfg.Data, end)
			ts.Defer(end)
			return
		case err := <-ended:
			stop()
			if !errors.Is(err, store.ErrInUse) || time.Now().After(deadline) {
				ts.Fatalf("%s ended: %v", cfg.Data, err)
			}
		}
	}
}

// node SITE NAME DEMAND [REFUSED...] reports as a proxy of the site until the script ends.
func node(ts *testscript.TestScript, _ bool, args []string) {
	var demand float64
	_, err := fmt.Sscan(args[2], &demand)
	ts.Check(err)
	report(ts, args[0], args[1], 1, demand, strings.Join(args[3:], " "))
}

// report sends reports of a proxy that was started at epoch.
func report(ts *testscript.TestScript, site, name string, epoch uint64, demand float64, refused string) {
	data, err := os.ReadFile(ts.MkAbs(site + "/run.json"))
	ts.Check(err)
	var r struct{ NATS, TokenFile string }
	ts.Check(json.Unmarshal(data, &r))
	n, err := bus.DialNode(bus.Options{URL: r.NATS, TokenFile: r.TokenFile}, site)
	ts.Check(err)
	ctx, stop := context.WithCancel(context.Background())
	ts.Defer(func() { stop(); n.Close() })
	go func() {
		for seq := uint64(1); ctx.Err() == nil; seq++ {
			_ = n.PublishReport(&mesh.NodeReport{
				Site: site, Node: name, Epoch: epoch, Seq: seq,
				RefusedWhy: refused,
				Services: []mesh.NodeServiceReport{{Demand: demand, ServiceReport: mesh.ServiceReport{
					Service: "default/shop", Slots: 4, ServiceTimeMS: 10, Arrivals: demand, InFlight: 2,
				}}},
				InForce: []mesh.EffectiveWeights{{Service: "default/shop", Source: "controller", HomeLimit: 7, Shares: map[string]float64{site: 1}}},
			})
			time.Sleep(50 * time.Millisecond)
		}
	}()
}

func exit(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// until REGEXP COMMAND... runs a command again and again until its output matches.
func until(ts *testscript.TestScript, _ bool, args []string) { ends(ts, true, args) }

// fails REGEXP COMMAND... is until for a command that fails.
func fails(ts *testscript.TestScript, _ bool, args []string) { ends(ts, false, args) }

func ends(ts *testscript.TestScript, good bool, args []string) {
	want := regexp.MustCompile("(?m)" + args[0])
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout")
		if (err == nil) == good && want.MatchString(out) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s never came, last:\n%s", args[0], out)
		}
	}
}

// wellFormed checks that a file is JSON or YAML.
func wellFormed(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		ts.Fatalf("%v", err)
	}
	if filepath.Base(args[0]) == "stdout" && strings.HasPrefix(text, "{") {
		ts.Check(json.Unmarshal([]byte(text), &v))
	}
}
