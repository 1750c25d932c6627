package bus

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

func TestTokens(t *testing.T) {
	for in, want := range map[string]string{
		"": "_", "north": "north", "a-1": "a-1", "a.b": "a_2eb", "a_b": "a_5fb", "a*>b c": "a_2a_3eb_20c", "é": "_c3_a9",
	} {
		if got := Token(in); got != want {
			t.Errorf("Token(%q) = %q, want %q", in, got, want)
		}
	}
	for _, bad := range []string{"a_", "a_2", "a_zz"} {
		if n, err := name(bad); err == nil {
			t.Errorf("name(%q) = %q", bad, n)
		}
	}
	if ReportSubject("a.b") == ReportSubject("a_2eb") || NodeSubject("a", "b.c") == NodeSubject("a.b", "c") {
		t.Error("different names share a subject")
	}
}

func FuzzTokens(f *testing.F) {
	for _, s := range []string{"", "north", "a.b", "_", "_5f", ">", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tok := Token(s)
		if tok == "" || strings.ContainsAny(tok, ".*> \t\r\n") {
			t.Fatalf("Token(%q) = %q is no token", s, tok)
		}
		if back, err := name(tok); err != nil || back != s {
			t.Fatalf("%q came back as %q, %v", s, back, err)
		}
		k := mesh.Key{Kind: "Site", Namespace: s, Name: s}
		if back, err := keyObject(objectKey(k)); err != nil || back != k {
			t.Fatalf("%v came back as %v, %v", k, back, err)
		}
	})
}

func FuzzKeys(f *testing.F) {
	f.Add("Site.default.a")
	f.Add("..")
	f.Add("a_2.b.c")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := keyObject(s)
		if err != nil {
			return
		}
		if back, err := keyObject(objectKey(k)); err != nil || back != k {
			t.Fatalf("%q is %v, came back as %v, %v", s, k, back, err)
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{}, "no NATS address"},
		{Options{URL: "nats://127.0.0.1:1", TokenFile: "a", NKeyFile: "b"}, "not both"},
		{Options{URL: "nats://127.0.0.1:1", TokenFile: filepath.Join(dir, "none")}, "no such file"},
		{Options{URL: "nats://127.0.0.1:1", TokenFile: file("two", "two words")}, "one word"},
		{Options{URL: "nats://127.0.0.1:1", NKeyFile: file("seed", "nonsense")}, "NKey"},
		{Options{URL: "nats://127.0.0.1:1", CAFile: file("ca", "nonsense")}, "no PEM certificate"},
		{Options{URL: "::bad"}, "connect"},
	} {
		conn, err := Connect(c.o)
		if err == nil {
			conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
	// A server that is not there yet is no error, and no secret is in messages.
	conn, err := Connect(Options{URL: "nats://user:hidden@127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.Connected() {
		t.Error("connected to nobody")
	}
	if err := conn.PublishReport(&mesh.Report{Site: "a"}); err != ErrNotConnected || conn.State().Unsent != 1 {
		t.Errorf("publish: %v, %+v", err, conn.State())
	}
	if got := redact("tls://user:hidden@host:1"); got != "tls://host:1" {
		t.Errorf("redacted %s", got)
	}
}
