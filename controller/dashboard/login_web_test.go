//go:build web

package dashboard

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// startGuarded runs a site controller whose page has a login, until the test ends, and
// returns the page's address and the API's of the machine.
func startGuarded(t *testing.T) (page, api string) {
	t.Helper()
	dir := t.TempDir()
	run := func(stdin, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	users, cert, key := filepath.Join(dir, "users"), filepath.Join(dir, "page.crt"), filepath.Join(dir, "page.key")
	for name, role := range map[string]string{"vera": "view", "otto": "operate"} {
		run(name+"'s own password\n", "../../bin/meridian", "dashboard", "user", name, "--role", role, "--file", users)
	}
	run("", "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=page", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert)
	data := filepath.Join(dir, "data")
	cmd := exec.Command("../../bin/sitecontroller", "--site", "a", "--hub", "--data", data, "--dashboard-listen", "127.0.0.1:0", "--dashboard-users", users, "--dashboard-cert", cert, "--dashboard-key", key)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if t.Failed() {
			t.Logf("the controller said\n%s", tail(log.String()))
		}
	})
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		r, err := siteapi.ReadRunFile(data)
		if err != nil {
			continue
		}
		c, err := siteapi.Dial(r.API)
		if err != nil {
			t.Fatal(err)
		}
		const site = "apiVersion: mesh.meridian.dev/v1alpha1\nkind: Site\nmetadata: {name: a}\nspec:\n  location: {type: Point, coordinates: [145, -37.8]}\n  gateways: [{address: \"127.0.0.1:1\"}]\n"
		if done, err := c.Apply(t.Context(), siteapi.ApplyRequest{Documents: []siteapi.Document{{Name: "site", YAML: site}}}); err != nil || len(done.Faults) > 0 {
			continue // it has only begun
		}
		return r.Page, r.API
	}
	t.Fatalf("no page was served\n%s", &log)
	return "", ""
}

// Beyond the machine the page asks who comes: a wrong password is refused and said so,
// who may look cannot change, who may operate can, and each change has a name.
func TestWebLogin(t *testing.T) {
	page, api := startGuarded(t)
	b := startBrowser(t, "--ignore-certificate-errors")
	b.size(1100, 740, "light")
	b.call("Page.navigate", map[string]any{"url": page + "/#/site/a"})
	login := func(name, password string) {
		b.t.Helper()
		b.until("it asks who comes", `document.querySelector("#login")?.open`)
		b.eval(fmt.Sprintf(`document.querySelector("#login-name").value = %q; document.querySelector("#login-password").value = %q; document.querySelector("#login-yes").click()`, name, password))
	}
	b.until("it asks who comes", `document.querySelector("#login")?.open && document.querySelector("main").children.length === 0`)
	axe(b, "the login")
	b.shoot("login")
	login("vera", "a guess of somebody")
	b.until("a wrong password is refused", `document.querySelector("#login").open && document.querySelector("#login-fault").textContent.includes("wrong")`)
	b.until("and nothing is shown", `document.querySelector("main").children.length === 0`)

	login("vera", "vera's own password")
	b.until("who may look sees the site", `!document.querySelector("#login").open && document.querySelector("#drain") && document.querySelector("#who").textContent.includes("vera may view")`)
	b.until("and cannot change it", `document.querySelector("#drain").disabled && document.querySelector("#cordon").disabled`)
	axe(b, "the page of who may look")
	// Not by the button alone.
	if got := b.eval(`fetch("/api/v1/site-traffic", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({site: "a", traffic: "cordoned"})}).then((r) => r.status)`); got != "403" {
		t.Errorf("who may look cordons: %s", got)
	}
	b.eval(`document.querySelector("#logout").click()`)
	login("otto", "otto's own password")
	b.until("who may operate may change it", `document.querySelector("#cordon") && !document.querySelector("#cordon").disabled`)
	b.eval(`document.querySelector("#cordon").click()`)
	b.until("it asks", `document.querySelector("#confirm").open`)
	b.eval(`document.querySelector("#confirm-reason").value = "new roof"; document.querySelector("#confirm-yes").click()`)
	b.until("it is done", `document.querySelector("#said").textContent.startsWith("Site a is cordoned.")`)
	c, err := siteapi.Dial(api)
	if err != nil {
		t.Fatal(err)
	}
	if takes := trafficOf(t, c, "a"); takes != "cordoned" {
		t.Errorf("confirmed, and the site is %q", takes)
	}
	b.eval(`location.hash = "#/audit"`)
	b.until("the audit names who did what", `[...document.querySelectorAll("tbody tr")].some((r) => r.textContent.includes("otto") && r.textContent.includes("new roof") && r.textContent.includes("done"))`)
	b.until("and who was not let in", `[...document.querySelectorAll("tbody tr")].some((r) => r.textContent.includes("vera") && r.textContent.includes("log in") && r.textContent.includes("refused"))`)
	axe(b, "the audit")
	b.shoot("audit")
	if s := b.strangers(page); len(s) > 0 {
		t.Errorf("asked of others: %v", s)
	}
}
