//go:build web

package dashboard

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// startDemo runs `meridian demo` until the test ends and returns its hub's client
// and address.
func startDemo(t *testing.T) (*siteapi.Client, string) {
	t.Helper()
	bin, err := filepath.Abs("../../bin/meridian")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("%v: make build, or run it by make test-web", err)
	}
	tmp := t.TempDir()
	cmd := exec.Command(bin, "demo", "--sites", "5", "--policies", "cooperative", "--duration", "75s")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "NO_COLOR=1")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			cmd.Process.Kill()
		}
		if t.Failed() {
			t.Logf("the demo said\n%s", tail(log.String()))
		}
	})
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		select {
		case err := <-ended:
			t.Fatalf("the demo ended: %v\n%s", err, &log)
		default:
		}
		found, err := filepath.Glob(filepath.Join(tmp, "meridian-demo-*", "*", "controller-hub"))
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			if found, err = filepath.Glob(filepath.Join(tmp, "meridian-demo-*", "controller-hub")); err != nil {
				t.Fatal(err)
			}
		}
		if len(found) == 0 {
			continue
		}
		r, err := siteapi.ReadRunFile(found[0])
		if err != nil {
			continue
		}
		c, err := siteapi.Dial(r.API)
		if err != nil {
			t.Fatal(err)
		}
		return c, r.API
	}
	t.Fatalf("the demo's hub never served\n%s", &log)
	return nil, ""
}

// sum is the part of the page's script that adds up rates of arrows.
const sum = `[...document.querySelectorAll("[data-flow]")].filter(e => e.dataset.flow.startsWith(%q)).reduce((n, e) => n + Number(e.dataset.rate), 0)`

// The page on a real mesh: a hotspot is seen, a site is drained by keyboard and its
// traffic is seen moving, a cut way is shown as cut; nothing is asked of anybody
// else, nothing breaks the policy, and axe finds nothing.
func TestWeb(t *testing.T) {
	hub, origin := startDemo(t)
	b := startBrowser(t)
	b.size(1100, 740, "light")
	began := time.Now()
	b.open(origin + "/#/map")
	t.Logf("loaded after %v", time.Since(began))
	b.until("five sites and the hub are on the map", `document.querySelectorAll("[data-site]").length === 6`)
	b.until("all sites are alive", `document.querySelectorAll('[data-site][data-status="alive"]').length === 6`)
	axe(b, "the map")

	b.until("a hotspot is seen", `document.querySelector('[data-grade="full"], [data-grade="busy"]') && document.querySelectorAll("[data-flow]").length > 0`)
	// The hottest site sends the most away: in calm times it is a few a second.
	b.until("the hot site sends load away", `[...document.querySelectorAll("[data-flow]")].some(e => Number(e.dataset.rate) > 30)`)
	hot := strings.Trim(b.eval(`[...document.querySelectorAll("[data-flow]")].sort((a, b) => b.dataset.rate - a.dataset.rate)[0].dataset.flow.split(" ")[0]`), `"`)
	b.shoot("map-hotspot")
	b.size(1100, 740, "dark")
	axe(b, "the map, dark")
	b.shoot("map-dark")
	b.size(1100, 740, "light")

	// Drained by keyboard alone: from the map to the site, the button, the dialog.
	b.eval(fmt.Sprintf(`document.querySelector('[data-site=%q]').focus()`, hot))
	b.key("Enter", 13)
	b.until("the site's page is shown", `document.querySelector("#drain")`)
	axe(b, "the site's page")
	b.shoot("site")
	b.eval(`document.querySelector("#drain").focus()`)
	b.key("Enter", 13)
	b.until("it asks", `document.querySelector("#confirm").open`)
	axe(b, "the question")
	b.key("Escape", 27)
	b.until("nothing was done", `document.querySelector("#said").textContent === "Nothing was changed."`)
	if takes := trafficOf(t, hub, hot); takes != "" {
		t.Fatalf("cancelled, and the site is %s", takes)
	}
	b.eval(`document.querySelector("#drain").focus()`)
	b.key("Enter", 13)
	b.until("it asks again", `document.querySelector("#confirm").open`)
	b.eval(`document.querySelector("#confirm-reason").value = "new disks"`)
	b.eval(`document.querySelector("#confirm-yes").focus()`)
	b.key("Enter", 13)
	b.until("it says so", fmt.Sprintf(`document.querySelector("#said").textContent.startsWith("Site %s is drained.")`, hot))
	if takes := trafficOf(t, hub, hot); takes != mesh.SiteDrained {
		t.Fatalf("confirmed, and the site's traffic is %q", takes)
	}
	b.until("the reason is shown", `document.body.innerText.includes("new disks")`)
	b.eval(`location.hash = "#/map"`)
	// All that its users ask for goes elsewhere: the arrows carry its demand.
	b.until("its traffic is seen moving", fmt.Sprintf(sum, hot+" ")+` > 20 && document.querySelector('[data-site="`+hot+`"]').textContent.includes("drained")`)
	b.shoot("map-drained")

	// Phone width: nothing is wider than the window.
	b.size(360, 740, "light")
	b.until("the map is drawn", `document.querySelector("svg.map")`)
	for _, view := range []string{"map", "sites", "site/" + hot, "chains", "check"} {
		b.eval(fmt.Sprintf(`location.hash = "#/%s"`, view))
		b.until(view+" fits a phone", `document.documentElement.scrollWidth <= 360 && document.querySelector("main h2")`)
		if view == "map" {
			b.until("the map is a phone's", `document.querySelector("svg.map").viewBox.baseVal.width < 600`)
			b.shoot("map-phone")
		}
	}
	b.size(1100, 740, "light")

	cut(t, hub, hot)
	b.eval(`location.hash = "#/map"`)
	b.until("the cut way is shown as cut", `document.querySelector('[data-cut]')?.textContent.includes("`+hot+`")`)
	b.shoot("map-cut")
	b.eval(`location.hash = "#/check"`)
	b.until("check names the cut way", `document.body.innerText.includes("nothing listens at the advertised address")`)
	axe(b, "the check")

	if s := b.strangers(origin); len(s) > 0 {
		t.Errorf("asked of others: %v", s)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.faults) > 0 {
		t.Errorf("the browser complains: %v", b.faults)
	}
	if len(b.requests) < 20 {
		t.Errorf("only %d requests were seen", len(b.requests))
	}
}

func trafficOf(t *testing.T, hub *siteapi.Client, site string) string {
	return siteOf(t, hub, site).Spec.Traffic
}

func siteOf(t *testing.T, hub *siteapi.Client, site string) *mesh.Site {
	t.Helper()
	list, err := hub.Get(t.Context(), siteapi.GetRequest{Kind: mesh.KindSite, Name: site})
	if err != nil || len(list.Objects) != 1 {
		t.Fatalf("site %s: %v, %+v", site, err, list)
	}
	s := new(mesh.Site)
	if err := json.Unmarshal(list.Objects[0].Object, s); err != nil {
		t.Fatal(err)
	}
	return s
}

// cut leads a site's first link to where nothing listens.
func cut(t *testing.T, hub *siteapi.Client, site string) {
	t.Helper()
	s := siteOf(t, hub, site)
	s.Spec.Links[0].Address = "127.0.0.1:1"
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, done := context.WithTimeout(t.Context(), 20*time.Second)
	defer done()
	r, err := hub.Apply(ctx, siteapi.ApplyRequest{Documents: []siteapi.Document{{Name: "cut", YAML: string(data)}}})
	if err != nil || len(r.Faults) > 0 {
		t.Fatalf("cut: %v, %+v", err, r)
	}
}

// axe runs axe-core on what is shown, where it is installed (make test-web does).
func axe(b *browser, what string) {
	b.t.Helper()
	path := os.Getenv("MERIDIAN_AXE")
	if path == "" {
		b.t.Fatal("MERIDIAN_AXE names axe.min.js: run it by make test-web")
	}
	if b.eval("typeof axe") == `"undefined"` {
		source, err := os.ReadFile(path)
		if err != nil {
			b.t.Fatal(err)
		}
		b.eval(string(source) + "; 0")
	}
	found := b.eval(`axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations.map(v => v.id + ": " + v.help + " " + v.nodes.map(n => n.target.join(" ")).slice(0, 3).join(", ")))`)
	if found != "[]" {
		b.t.Errorf("axe, %s: %s", what, found)
	}
}
