package controller_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// TestSFC: an application function with a token sets, sees and removes requirements, which
// nodes get; without one it does nothing, and what is wrong is said by its field.
func TestSFC(t *testing.T) {
	const token, other = "0123456789abcdef0123456789abcdef", "ffffffffffffffffffffffffffffffff"
	tokens := filepath.Join(t.TempDir(), "tokens")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(tokens, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# the video service\n" + token + "\n")
	s := start(t, controller.Config{Site: "north", SFC: controller.SFC{Listen: "127.0.0.1:0", TokenFile: tokens}})
	ask := func(bearer, method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(method, s.run.SFC+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", bearer)
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode >= 400 && res.StatusCode != 405 && !bytes.Contains(b, []byte(`"status":`)) && res.Header.Get("Content-Type") == "application/problem+json" {
			t.Errorf("%s %s: %d %q is no ProblemDetails", method, path, res.StatusCode, b)
		}
		return res.StatusCode, string(b)
	}
	const at, good = siteapi.PathSFC + "/default/video", `{"afSfcReq": {"sfcIdUl": "both", "sfcIdDl": "both"}, "dnn": "internet"}`
	for _, c := range []struct {
		bearer, method, path, body string
		status                     int
		want                       string
	}{
		{"", "PUT", at, good, 401, "want Authorization: Bearer"},
		{"Bearer " + other, "PUT", at, good, 401, "want Authorization: Bearer"},
		{"Basic " + token, "GET", siteapi.PathSFC, "", 401, "want Authorization: Bearer"},
		{"Bearer " + token, "GET", siteapi.PathStatus, "", 404, ""},
		{"Bearer " + token, "POST", siteapi.PathApply, `{}`, 404, ""},
		{"Bearer " + token, "GET", at, "", 404, "there is no such AfSfcRequirement"},
		{"Bearer " + token, "DELETE", at, "", 404, "there is no such AfSfcRequirement"},
		{"Bearer " + token, "PUT", at, `[]`, 400, "no JSON object"},
		{"Bearer " + token, "PUT", at, ``, 400, "no JSON object"},
		{"Bearer " + token, "PUT", at, `{"afSfcReq": {"sfcIdUl": "a", "metadata": "thirteen-byte"}, "dnn": "internet"}`, 400, `{"param":"afSfcReq.metadata","reason":"has 13 bytes, and a packet's header has room for 12`},
		{"Bearer " + token, "PUT", at, `{"afSfcReq": {"sfcIdUl": "a"}, "dnn": "internet", "supi": "x"}`, 400, "supi"},
		{"Bearer " + token, "PUT", siteapi.PathSFC + "/default/No_Name", good, 400, "No_Name"},
		{"Bearer " + token, "GET", siteapi.PathSFC, "", 200, `{"requirements":[]}`},
		{"Bearer " + token, "PUT", at, good, 201, `"param":"afSfcReq.sfcIdUl","reason":"TargetNotFound","message":"there is no ServiceChain default/both"`},
	} {
		if status, body := ask(c.bearer, c.method, c.path, c.body); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s %s: %d %s, want %d %s", c.method, c.path, c.body, status, body, c.status, c.want)
		}
	}
	s.must(`
apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: upf}
spec: {ports: [{interface: n6, dnn: internet}, {interface: out}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: f}
spec: {instances: [{name: f-1, node: upf, left: f1l, right: f1r}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: both}
spec: {functions: [f], ingress: {node: upf}, egress: {node: upf, interface: out}}
`)
	write(other + "\n") // tokens change without a restart
	bearer := "Bearer " + other
	if status, body := ask("Bearer "+token, "GET", at, ""); status != 401 {
		t.Errorf("with the old token %d %s", status, body)
	}
	status, body := ask(bearer, "GET", at, "")
	var x siteapi.SFCRequirement
	if err := json.Unmarshal([]byte(body), &x); err != nil || status != 200 || x.Name != "video" || len(x.Conditions) != 0 || !strings.Contains(string(x.Request), `"sfcIdUl":"both"`) {
		t.Errorf("%d %s %v", status, body, err)
	}
	n := s.node("upf")
	eventually := func(what string, want string) {
		t.Helper()
		within(t, 20*time.Second, what, func() bool {
			snap := n.snapshot.Load()
			if snap == nil {
				return false
			}
			text := ""
			for _, c := range snap.Objects.OfPackets().ServiceChains {
				for _, m := range c.Spec.Match {
					text += strings.Join(m.DNNs, ",")
				}
			}
			return text == want && len(snap.Objects.ServiceChains) == 1
		})
	}
	eventually("the node's chain has the requirement's match", "internet")
	if status, body := ask(bearer, "PUT", at, strings.Replace(good, "internet", "none", 1)); status != 200 || !strings.Contains(body, "ChainNode upf has no port or pool") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := ask(bearer, "DELETE", at, ""); status != 204 || body != "" {
		t.Errorf("%d %s", status, body)
	}
	eventually("the node's chain is as it is written", "")
	if s.has(mesh.KindAfSfcRequirement, "video") {
		t.Error("it is there after DELETE")
	}
}

func TestSFCConfig(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := os.WriteFile(open, []byte("0123456789abcdef0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]controller.SFC{
		"need a file of tokens":      {Listen: "127.0.0.1:0"},
		"beyond loopback":            {Listen: "0.0.0.0:9443", TokenFile: open},
		"one of the two is given":    {Listen: "127.0.0.1:0", TokenFile: open, Cert: "a"},
		"no address to take them at": {TokenFile: open},
	} {
		if _, err := controller.New(controller.Config{Site: "north", Data: t.TempDir(), SFC: c}, controller.Deps{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}
