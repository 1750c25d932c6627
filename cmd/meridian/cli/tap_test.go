package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// tapped FILE VERB ARG... -- SITE NODE HOST PATH runs meridian, which has to end by
// itself with 0, while requests for HOST PATH and for HOST /other come to a proxy one
// after the other, and writes what it says to FILE.
func tapped(ts *testscript.TestScript, _ bool, args []string) {
	at := slices.Index(args, "--")
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	self, err := os.Executable()
	ts.Check(err)
	cmd := exec.CommandContext(ctx, self, args[1:at]...)
	// A program of the script's is this binary under its name, see testscript.Main.
	cmd.Args[0] = "meridian"
	cmd.Env = append(os.Environ(), "MERIDIAN_DATA="+ts.Getenv("MERIDIAN_DATA"), "TZ=UTC")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	ts.Check(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	to := args[at+1:]
	ingress := listener(ts, ts.MkAbs(to[0]+"-"+to[1]), "http")
	for {
		for _, path := range []string{"/other", to[3] + "?a=b"} {
			_, err := request(ingress, to[2], path, "")
			ts.Check(err)
		}
		select {
		case err := <-ended:
			if err != nil {
				ts.Fatalf("%v: %v\n%s", args, err, &errs)
			}
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), out.Bytes(), 0o600))
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// followed FILE ID VERB ARG... -- SITE NODE HOST PATH runs meridian until it has said
// something, sends a request with an ID, and interrupts it when it has told of that,
// upon which it has to end with 0. What it says is in FILE.
func followed(ts *testscript.TestScript, _ bool, args []string) {
	at := slices.Index(args, "--")
	self, err := os.Executable()
	ts.Check(err)
	cmd := exec.Command(self, args[2:at]...)
	cmd.Args[0] = "meridian"
	cmd.Env = append(os.Environ(), "MERIDIAN_DATA="+ts.Getenv("MERIDIAN_DATA"))
	out, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	ts.Check(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	says := func(text string) {
		for end := time.Now().Add(20 * time.Second); !strings.Contains(ts.ReadFile(args[0]), text); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				_ = cmd.Process.Kill()
				ts.Fatalf("%v never said %q", args, text)
			}
		}
	}
	says("\n")
	to := args[at+1:]
	_, err = request(listener(ts, ts.MkAbs(to[0]+"-"+to[1]), "http"), to[2], to[3], args[1])
	ts.Check(err)
	says(args[1])
	ts.Check(cmd.Process.Signal(os.Interrupt))
	if err := <-ended; err != nil {
		ts.Fatalf("interrupted: %v", err)
	}
}

// send SITE NODE HOST PATH STATUS ID sends one request with an x-request-id, until it
// is answered as it is to be: a proxy may not have the configuration yet.
func send(ts *testscript.TestScript, _ bool, args []string) {
	ingress := listener(ts, ts.MkAbs(args[0]+"-"+args[1]), "http")
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		status, err := request(ingress, args[2], args[3], args[5])
		ts.Check(err)
		if fmt.Sprint(status) == args[4] {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s%s: %d, want %s", args[2], args[3], status, args[4])
		}
	}
}

func request(ingress, host, path, id string) (int, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+ingress+path, nil)
	if err != nil {
		return 0, err
	}
	req.Host = host
	if id != "" {
		req.Header.Set("X-Request-Id", id)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// jsonLines FILE N wants N lines, each of them an object.
func jsonLines(ts *testscript.TestScript, _ bool, args []string) {
	lines := strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n")
	if fmt.Sprint(len(lines)) != args[1] {
		ts.Fatalf("%d lines, want %s", len(lines), args[1])
	}
	for _, l := range lines {
		var o map[string]any
		ts.Check(json.Unmarshal([]byte(l), &o))
	}
}
