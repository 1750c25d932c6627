package emu

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestProcessIsControlledOverItsRunFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.json")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{Site: "north", Endpoints: 2, Slots: 3, ServiceTime: 20 * time.Millisecond}, path)
	}()
	var ready RunFile
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if b, err := os.ReadFile(path); err == nil {
			if err := json.Unmarshal(b, &ready); err != nil {
				t.Fatal(err)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("no run file after 10 s")
		}
	}
	if len(ready.Endpoints) != 2 {
		t.Fatalf("%+v", ready)
	}
	control := Control{Addr: ready.Control, Client: http.DefaultClient}
	if err := control.SetFactor(ctx, 4); err != nil {
		t.Fatal(err)
	}
	if took := get(t, netip.MustParseAddrPort(ready.Endpoints[1]), 1); took < 80*time.Millisecond {
		t.Errorf("took %v at four times 20 ms", took)
	}
	if s, err := control.Stats(ctx); err != nil || s.Served != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if err := control.SetFactor(ctx, -1); err == nil {
		t.Error("a negative factor was taken")
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("stopped with %v", err)
	}
}
