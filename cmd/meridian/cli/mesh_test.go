package cli_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/meridian-mesh/meridian/cmd/meridian/cli"
	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/join"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// meshCommands are for scripts on a mesh with real proxies.
func meshCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"tapped": tapped, "followed": followed, "send": send, "json-lines": jsonLines,
		"proxy": proxy, "backend": backend, "port": port, "subst": subst, "agree": agree,
		"untar": untar, "secretless": secretless, "revision": revision, "restart": restart,
		"occupy": occupy, "twin": twin, "twin-node": func(ts *testscript.TestScript, _ bool, args []string) { report(ts, args[0], args[1], 2, 1, "") },
	}
}

// built is the folder of the programs, empty until a script wanted them.
var built string

// edgeproxyProgram builds the proxy once.
var edgeproxyProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "meridian-cli-")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "edgeproxy")
	out, err := exec.Command("go", "build", "-o", path, "../../edgeproxy").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

// proxy SITE NODE [FLAG...] starts a real edgeproxy of a site until the script ends.
// Its state is in $WORK/SITE-NODE.
func proxy(ts *testscript.TestScript, _ bool, args []string) {
	path, err := edgeproxyProgram()
	ts.Check(err)
	r, err := siteapi.ReadRunFile(ts.MkAbs(args[0]))
	ts.Check(err)
	state := ts.MkAbs(args[0] + "-" + args[1])
	flags := append([]string{
		"--config", r.NATS, "--nats-token-file", r.TokenFile, "--trust-key", r.TrustKey, "--site", args[0], "--node", args[1],
		"--admin", "127.0.0.1:0", "--state-dir", state, "--loops", "1", "--drain-timeout", "1s",
	}, args[2:]...)
	cmd := exec.Command(path, flags...)
	var log bytes.Buffer
	cmd.Stderr = &log
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var run struct{ Admin string }
		data, err := os.ReadFile(filepath.Join(state, "run.json"))
		if err == nil && json.Unmarshal(data, &run) == nil && run.Admin != "" {
			ts.Setenv(strings.ToUpper(args[0])+"_ADMIN", run.Admin)
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("the proxy of %s does not serve:\n%s", args[0], &log)
		}
	}
}

// backend VAR... starts servers that answer with their address, and sets VAR to it.
func backend(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		var addr string
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Endpoint", addr)
		}))
		addr = s.Listener.Addr().String()
		ts.Setenv(name, addr)
		ts.Defer(func() { s.CloseClientConnections(); s.Close() })
	}
}

// port VAR... sets each variable to a port that is free.
func port(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		ts.Setenv(name, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
		ts.Check(l.Close())
	}
}

// subst FILE replaces $NAME in a file by the variable's value.
func subst(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(path, []byte(text), 0o600))
}

// agree SITE NODE HOST PATH [LISTENER] compares what explain says with what really answers: it
// explains, sends 40 requests one by one, and wants each answered by an endpoint
// that explain allows at a site to which it gives a chance, and the status of the
// proxy's own answers. ADMIN is asked where the site's controller is not. With a
// LISTENER it is about connections that are passed on whole there, one for each request.
func agree(ts *testscript.TestScript, _ bool, args []string) {
	site, node, host, path := args[0], args[1], args[2], args[3]
	name, asks := "http", []string{"--host", host, "--path", path}
	if len(args) > 4 {
		name, asks = args[4], []string{"--protocol", "tcp", "--listener", "default/ingress/" + args[4]}
		host, path = "any", "/"
	}
	ingress := listener(ts, ts.MkAbs(site+"-"+node), name)
	x := explained(ts, append([]string{"--data", ts.MkAbs(site), "explain", "--node", node, "-o", "json"}, asks...)...)
	may := map[string]bool{}
	for _, b := range x.Backends {
		for _, s := range b.Sites {
			if s.Chance == 0 {
				continue
			}
			endpoints := b.Endpoints
			if !s.Home {
				endpoints = nil
				for _, there := range b.There {
					if there.Site == s.Site {
						endpoints = there.Backends[0].Endpoints
					}
				}
				if endpoints == nil {
					ts.Fatalf("site %s has a chance, but nothing is said of its endpoints: %v", s.Site, b.Silent)
				}
			}
			for _, e := range endpoints {
				if e.May {
					may[e.Address] = true
				}
			}
		}
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: name != "http"}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	seen := map[string]bool{}
	for range 40 {
		req, err := http.NewRequest(http.MethodGet, "http://"+ingress+path, nil)
		ts.Check(err)
		req.Host = host
		resp, err := client.Do(req)
		ts.Check(err)
		_, err = io.Copy(io.Discard, resp.Body)
		ts.Check(err)
		resp.Body.Close()
		answered := resp.Header.Get("X-Endpoint")
		own := x.Answer
		for _, b := range x.Backends {
			own += b.Invalid
		}
		switch {
		case answered == "" && strings.Contains(own, fmt.Sprint(resp.StatusCode)):
		case answered == "" || !may[answered]:
			ts.Fatalf("%s%s was answered by %q with %d; explain allows %v and says %q", host, path, answered, resp.StatusCode, may, own)
		}
		seen[answered] = true
	}
	for e := range may {
		if !seen[e] {
			ts.Fatalf("explain says that %s may answer, but of 40 requests none went there: %v", e, seen)
		}
	}
}

func explained(ts *testscript.TestScript, args ...string) *siteapi.Explained {
	var out, errs bytes.Buffer
	if code := cli.Main("test", args, nil, &out, &errs); code != 0 {
		ts.Fatalf("%v: %s", args, &errs)
	}
	x := new(siteapi.Explained)
	ts.Check(json.Unmarshal(out.Bytes(), x))
	return x
}

// listener is the address of a proxy's listener, once it is bound.
func listener(ts *testscript.TestScript, state, name string) string {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var run struct {
			Listeners []struct{ Name, Address string }
		}
		data, err := os.ReadFile(filepath.Join(state, "run.json"))
		if err != nil || json.Unmarshal(data, &run) != nil {
			continue
		}
		for _, l := range run.Listeners {
			if l.Name == name {
				return l.Address
			}
		}
	}
	ts.Fatalf("%s has no listener %s", state, name)
	return ""
}

// occupy PORT listens on a port until the script ends.
func occupy(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:"+args[0])
	ts.Check(err)
	ts.Defer(func() { l.Close() })
}

// twin SITE runs a second controller of a site, on a copy of its data folder.
func twin(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	f, err := join.ReadSiteFile(dir)
	ts.Check(err)
	copied := ts.MkAbs(args[0] + "-copy")
	ts.Check(os.CopyFS(copied, os.DirFS(dir)))
	for _, left := range []string{"lock", siteapi.RunFileName} {
		ts.Check(os.RemoveAll(filepath.Join(copied, left)))
	}
	run(ts, controller.Config{Site: args[0], Data: copied, HubURLs: f.HubURLs, HubCA: f.HubCA, HubKey: f.HubKey})
}

// untar FILE unpacks a compressed archive.
func untar(ts *testscript.TestScript, _ bool, args []string) {
	z, err := gzip.NewReader(strings.NewReader(ts.ReadFile(args[0])))
	ts.Check(err)
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if err == io.EOF {
			return
		}
		ts.Check(err)
		data, err := io.ReadAll(t)
		ts.Check(err)
		path := ts.MkAbs(h.Name)
		ts.Check(os.MkdirAll(filepath.Dir(path), 0o700))
		ts.Check(os.WriteFile(path, data, 0o600))
	}
}

// secretless FOLDER SECRET... wants none of the secrets in any file: each is a word, or
// the file that holds it.
func secretless(ts *testscript.TestScript, _ bool, args []string) {
	looked := 0
	for _, s := range args[1:] {
		if data, err := os.ReadFile(ts.MkAbs(s)); err == nil {
			s = strings.TrimSpace(string(data))
		} else if strings.Contains(s, "/") {
			ts.Fatalf("%v", err)
		}
		ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			looked++
			if err == nil && strings.Contains(string(data), s) {
				err = fmt.Errorf("%s holds a secret: %s", path, s)
			}
			return err
		}))
	}
	if looked < 10 {
		ts.Fatalf("looked at %d files only", looked)
	}
}
