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
	"strconv"
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
	cmd := exec.Command(bin, "demo", "--sites", "5", "--policies", "cooperative", "--duration", "100s")
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
	timeTravel(b, hot)
	pinned(t, b, hub, hot)
	b.eval(`location.hash = "#/traffic"`)
	b.until("who asks whom is drawn", `document.querySelectorAll("[data-arc]").length > 0 && [...document.querySelectorAll("[data-arc]")].some(e => Number(e.dataset.across) > 0)`)
	axe(b, "the traffic")
	b.shoot("traffic")
	manySites(b)

	b.eval(`location.hash = "#/map"`)
	// Phone width: nothing is wider than the window.
	b.size(360, 740, "light")
	b.until("the map is drawn", `document.querySelector("svg.map")`)
	for _, view := range []string{"map", "sites", "site/" + hot, "traffic", "chains", "check"} {
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

// timeTravel goes back to before a site was drained, and to now again.
func timeTravel(b *browser, drained string) {
	b.t.Helper()
	site := `document.querySelector('[data-site="` + drained + `"]')`
	here := site + `.textContent.includes("drained")`
	b.until("there is a past", `!document.querySelector("#time").hidden && Number(document.querySelector("#when").max) > 1`)
	b.eval(`document.querySelector("#when").focus()`)
	b.key("Home", 36)
	b.key("ArrowRight", 39) // the first moment of all may be from before the sites knew each other
	b.until("the site was not drained then", `document.querySelector("#time.past") && `+site+` && !(`+here+`)`)
	axe(b, "the past")
	b.shoot("map-past")
	b.eval(`document.querySelector("#back-to-now").click()`)
	b.until("now it is", `!document.querySelector("#time.past") && document.querySelector("#when-text").textContent === "now" && `+here)
}

// pinned pins one service of a site by the dialog, sees it in the plan, and frees it.
func pinned(t *testing.T, b *browser, hub *siteapi.Client, site string) {
	t.Helper()
	other := ""
	w, err := hub.Weights(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	service := ""
	for _, row := range w.Rows {
		for _, s := range row.Services {
			if row.Site == site && len(s.Remotes) > 0 {
				service, other = string(s.Service), s.Remotes[0].Site
			}
		}
	}
	pin := func() bool {
		list, err := hub.Get(t.Context(), siteapi.GetRequest{Kind: mesh.KindTrafficPolicy})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list.Objects {
			p := new(mesh.TrafficPolicy)
			if err := json.Unmarshal(o.Object, p); err != nil {
				t.Fatal(err)
			}
			if p.Spec.SiteSharing != nil && p.Spec.SiteSharing.PinOf(site)[other] > 0 {
				return true
			}
		}
		return false
	}
	b.eval(`location.hash = "#/site/` + site + `"`)
	button := fmt.Sprintf(`document.getElementById("pin %s")`, service)
	b.until("the plan can be pinned", button)
	b.eval(button + ".focus()")
	b.key("Enter", 13)
	b.until("it asks for shares", `document.querySelector("#pin").open`)
	axe(b, "the question for shares")
	b.eval(`document.querySelectorAll("#pin-shares input").forEach((e) => { e.value = "0"; })`)
	b.eval(`document.querySelector("#pin-yes").click()`)
	b.until("nothing at all is refused", `document.querySelector("#pin").open && document.querySelector("#pin-fault").textContent !== ""`)
	b.eval(`[...document.querySelectorAll("#pin-shares label")].find((l) => l.textContent.startsWith("` + other + `,")).querySelector("input").value = "100"`)
	b.eval(`document.querySelector("#pin-yes").click()`)
	b.until("it is pinned", `document.querySelector("#said").textContent.endsWith("is pinned.")`)
	if !pin() {
		t.Fatalf("confirmed, and %s of %s is not pinned to %s", service, site, other)
	}
	b.until("the page says so", `document.body.innerText.includes("pinned by the operator")`)
	b.eval(fmt.Sprintf(`document.getElementById("unpin %s").click()`, service))
	b.until("it is free again", `document.querySelector("#said").textContent.endsWith("not pinned any more.")`)
	if pin() {
		t.Fatalf("%s of %s is still pinned", service, site)
	}
}

// manySites draws 500 sites whose load changes with every frame, in the real page.
func manySites(b *browser) {
	b.t.Helper()
	const draw = `import("/bigmap.js").then(({ BigMap }) => new Promise((done) => {
		const map = new BigMap();
		document.body.append(map.element);
		const sites = Array.from({ length: 500 }, (_, i) => ({
			name: "site-" + i, lon: 144 + (i % 25) * 0.04, lat: -38 + Math.floor(i / 25) * 0.04, status: "alive", ageMs: 100, traffic: "", reason: "",
			load: 0, served: 0, demand: 0, inFlight: 0, services: [], said: null, silence: "", rttMs: 0, known: true,
		}));
		const frames = [];
		let began = 0;
		const frame = (now) => {
			began ||= now;
			frames.push(now);
			for (const s of sites) { s.load = Math.random(); s.served = 100 * Math.random(); }
			map.enlarge(frames.length % 2 ? 1.1 : 1 / 1.1, 500, 300);
			map.draw(sites, sites.slice(1).map((s, i) => ({ from: s.name, to: sites[i].name, rate: 100 * Math.random() })), []);
			if (now - began < 2000) requestAnimationFrame(frame);
			else if (map.canvas.dataset.sites !== "500") done("drew " + map.canvas.dataset.sites);
			else { map.element.remove(); done(Math.round(1000 * (frames.length - 1) / (now - began))); }
		};
		requestAnimationFrame(frame);
	}))`
	// The best of three: what else runs on the machine is not the page's.
	best := 0
	for try := 0; try < 3 && best < 30; try++ {
		got := b.eval(draw)
		fps, err := strconv.Atoi(got)
		if err != nil {
			b.t.Fatalf("frames: %s", got)
		}
		b.t.Logf("500 sites and 499 arrows: %d frames/s", fps)
		best = max(best, fps)
	}
	if best < 30 {
		b.t.Errorf("500 sites are drawn at %d frames/s, want 30", best)
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
