//go:build web

package dashboard

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// browser is Chromium, driven by the DevTools protocol over a pipe.
type browser struct {
	t       *testing.T
	out     *os.File
	session string

	mu      sync.Mutex
	next    int
	waiting map[int]chan json.RawMessage
	// requests are the addresses that were asked for, faults what the page and the
	// browser complained of.
	requests, faults []string
}

func startBrowser(t *testing.T, flags ...string) *browser {
	t.Helper()
	return startBrowserIn(t, (*exec.Cmd).Start, flags...)
}

// startBrowserIn starts it by start, which may do so in a network namespace.
func startBrowserIn(t *testing.T, start func(*exec.Cmd) error, flags ...string) *browser {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		t.Fatal("no browser: apt-get install chromium")
	}
	theirIn, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	in, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append(flags, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
		"--disable-background-networking", "--user-data-dir="+t.TempDir(), "--remote-debugging-pipe", "about:blank")...)
	cmd.ExtraFiles = []*os.File{theirIn, theirOut} // 3 to read, 4 to write
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := start(cmd); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		out.Close()
		if t.Failed() {
			t.Logf("the browser said\n%s", tail(log.String()))
		}
	})
	b := &browser{t: t, out: out, waiting: map[int]chan json.RawMessage{}}
	go b.read(in)
	var target struct{ TargetID string }
	b.into(b.call("Target.createTarget", map[string]any{"url": "about:blank"}), &target)
	var attached struct{ SessionID string }
	b.into(b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}), &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Network", "Runtime", "Log"} {
		b.call(domain+".enable", nil)
	}
	return b
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

func (b *browser) read(in *os.File) {
	r := bufio.NewReader(in)
	for {
		data, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m struct {
			ID     int
			Method string
			Result json.RawMessage
			Error  *struct{ Message string }
			Params struct {
				Request          struct{ URL string }
				Entry            struct{ Level, Text, URL string }
				ExceptionDetails struct {
					Text      string
					Exception struct{ Description string }
				}
			}
		}
		if json.Unmarshal(bytes.TrimSuffix(data, []byte{0}), &m) != nil {
			continue
		}
		b.mu.Lock()
		switch m.Method {
		case "Network.requestWillBeSent":
			b.requests = append(b.requests, m.Params.Request.URL)
		case "Log.entryAdded":
			if m.Params.Entry.Level == "error" {
				b.faults = append(b.faults, m.Params.Entry.Text+" "+m.Params.Entry.URL)
			}
		case "Runtime.exceptionThrown":
			b.faults = append(b.faults, m.Params.ExceptionDetails.Text+" "+m.Params.ExceptionDetails.Exception.Description)
		}
		if c := b.waiting[m.ID]; c != nil {
			delete(b.waiting, m.ID)
			if m.Error != nil {
				b.faults = append(b.faults, "devtools: "+m.Error.Message)
			}
			c <- m.Result
		}
		b.mu.Unlock()
	}
}

// call sends one command and returns its result.
func (b *browser) call(method string, params any) json.RawMessage {
	b.t.Helper()
	b.mu.Lock()
	b.next++
	id := b.next
	answer := make(chan json.RawMessage, 1)
	b.waiting[id] = answer
	b.mu.Unlock()
	m := map[string]any{"id": id, "method": method}
	if params != nil {
		m["params"] = params
	}
	if b.session != "" {
		m["sessionId"] = b.session
	}
	data, err := json.Marshal(m)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.out.Write(append(data, 0)); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	select {
	case r := <-answer:
		return r
	case <-time.After(60 * time.Second):
		b.t.Fatalf("%s: the browser does not answer", method)
		return nil
	}
}

func (b *browser) into(data json.RawMessage, v any) {
	b.t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		b.t.Fatalf("%v: %s", err, data)
	}
}

// eval runs an expression in the page, awaits it, and returns its value as JSON text.
func (b *browser) eval(expression string) string {
	b.t.Helper()
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Exception struct{ Description string }
		}
	}
	b.into(b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}), &r)
	if r.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", expression, r.ExceptionDetails.Exception.Description)
	}
	return string(r.Result.Value)
}

// until waits for an expression to be true.
func (b *browser) until(what, expression string) {
	b.t.Helper()
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if b.eval("Boolean("+expression+")") == "true" {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("%s: never; the page says\n%s", what, b.eval("document.body.innerText"))
		}
	}
}

// open goes to an address and waits for the page's program.
func (b *browser) open(url string) {
	b.t.Helper()
	b.call("Page.navigate", map[string]any{"url": url})
	b.until("the page is loaded", `document.readyState === "complete" && document.querySelector("main")?.children.length > 0`)
}

// key presses one key.
func (b *browser) key(name string, code int) {
	b.t.Helper()
	for _, kind := range []string{"keyDown", "keyUp"} {
		p := map[string]any{"type": kind, "key": name, "windowsVirtualKeyCode": code}
		if name == "Enter" && kind == "keyDown" {
			p["text"] = "\r"
		}
		b.call("Input.dispatchKeyEvent", p)
	}
}

// size makes the window as large, in CSS pixels.
func (b *browser) size(width, height int, scheme string) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
}

// shoot takes a picture, where MERIDIAN_SCREENSHOTS names a folder for them.
func (b *browser) shoot(name string) {
	b.t.Helper()
	dir := os.Getenv("MERIDIAN_SCREENSHOTS")
	if dir == "" {
		return
	}
	var r struct{ Data string }
	b.into(b.call("Page.captureScreenshot", map[string]any{"format": "png"}), &r)
	data, err := base64.StdEncoding.DecodeString(r.Data)
	if err == nil {
		err = os.WriteFile(fmt.Sprintf("%s/%s.png", dir, name), data, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// strangers are requests that left the origin.
func (b *browser) strangers(origin string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, r := range b.requests {
		if !strings.HasPrefix(r, origin+"/") && r != "about:blank" {
			out = append(out, r)
		}
	}
	return out
}
