package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/chaining/soft"
)

func TestUsage(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"", "--config is missing"},
		{"--config ftp://x --site a", "want nats:// or tls://"},
		{"--config nats://x", "--site is needed"},
		{"--config nats://x --site a --check", "--check reads files"},
		{"--config f --nats-token-file t", "--nats-token-file is for --config nats://"},
		{"--config f --trust-key t", "--trust-key is for --config nats://"},
		{"--config f --datapath fast", "want auto, bpf or soft"},
		{"--config f --datapath bpf --integrity-keys k", "the kernel's side cannot make codes"},
		{"--config f --integrity-window 0s", "want more than 0"},
		{"--config f --admin 192.0.2.1:80", "is not a loopback address"},
		{"--config f stray", `unexpected argument "stray"`},
	} {
		var out, errs bytes.Buffer
		if code := run(strings.Fields(tt.args), &out, &errs); code != exitUsage || !strings.Contains(errs.String(), tt.want) {
			t.Errorf("%s: exit %d, %s, want %q", tt.args, code, errs.String(), tt.want)
		}
	}
}

func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "chains.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: mesh.meridian.dev/v1alpha1\nkind: ChainNode\nmetadata: {name: a}\nspec: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if code := run([]string{"--config", file, "--node", "a", "--check"}, &out, &errs); code != exitOK {
		t.Errorf("exit %d: %s", code, errs.String())
	}
	if code := run([]string{"--config", file, "--node", "b", "--check"}, &out, &errs); code != exitFailed || !strings.Contains(errs.String(), "there is no ChainNode b") {
		t.Errorf("exit %d: %s", code, errs.String())
	}
}

func TestReadKeys(t *testing.T) {
	const secret = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	for _, tt := range []struct{ text, want string }{
		{"k1 " + secret + "\n\n  k0\t" + secret + "\n", ""},
		{"", "no key"},
		{"k1 " + secret + "\nk2\n", ":2: has 1 words"},
		{"k1 not*base64\n", `:1: the secret of key "k1" is not base64`},
		{"k1 c2hvcnQ=\n", "secret has 5 bytes"},
		{"k1 " + secret + "\nk1 " + secret + "\n", `key "k1" is there twice`},
	} {
		file := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := readKeys(file, soft.DefaultWindow)
		switch {
		case tt.want == "" && (err != nil || in == nil):
			t.Errorf("%q: %v", tt.text, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), secret)):
			t.Errorf("%q: %v, want %q", tt.text, err, tt.want)
		}
	}
}
