package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDebianVersion(t *testing.T) {
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct{ described, want string }{
		{"v1.2.3-0-gabc1234", "1.2.3"},
		{"v1.2.3-0-gabc1234-dirty", "1.2.3+dirty"},
		{"v1.2.3-7-gabc1234", "1.2.3+7.gabc1234"},
		{"v1.2.3-rc.1-0-gabc1234", "1.2.3~rc.1"},
		{"v1.2.3-rc.1-4-gabc1234-dirty", "1.2.3~rc.1+4.gabc1234+dirty"},
		{"abc1234", "0.0.0+20260102030405.gabc1234"},
		{"abc1234-dirty", "0.0.0+20260102030405.gabc1234+dirty"},
		{"release-7-0-gabc", ""},
		{"v1.2-0-gabc", ""},
	} {
		got, err := debianVersion(tt.described, when)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: %q, %v, want %q", tt.described, got, err, tt.want)
		}
	}
}

func TestBuildTime(t *testing.T) {
	committed := time.Unix(1000, 0)
	for epoch, want := range map[string]int64{"": 1000, "1700000000": 1_700_000_000, "-1": 0, "today": 0} {
		got, err := buildTime(epoch, committed)
		if (err == nil) != (want != 0) || err == nil && got.Unix() != want {
			t.Errorf("%q: %v, %v", epoch, got, err)
		}
	}
}

func TestManual(t *testing.T) {
	page, err := manual("tool", 8, "# tool\n\n```text\ntool does things.\n\n  --data  a \\ b\n.hidden\n```\n\n## tool sub\n\n```text\nSub.\n```\n", time.Unix(0, 0).UTC())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{".TH TOOL 8 1970-01-01 Meridian\n", "tool \\- does things.\n", "\\-\\-data  a \\e b\n", "\n\\&.hidden\n", ".SH TOOL SUB\n.nf\nSub.\n.fi\n"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in\n%s", want, page)
		}
	}
	if _, err := manual("tool", 8, "# other\n\n```text\nx\n```\n", time.Unix(0, 0)); err == nil {
		t.Error("a page of another program is taken")
	}
}

// binaries are scripts in the programs' places: what is in a package does not matter to
// how it is packed.
func binaries(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	for _, arch := range []string{".", "arm64"} {
		for _, program := range []string{"meridian", "edgeproxy", "sitecontroller", "chainagent"} {
			path := filepath.Join(bin, arch, program)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("#!/bin/sh\necho "+program+" $*\n"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	return bin
}

// TestSameBytes: packages do not depend on when and by whom they are made, nor on the
// mode that a file happens to have.
func TestSameBytes(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	var made [2]map[string][]byte
	for i := range made {
		bin, out := binaries(t), t.TempDir()
		if err := os.Chmod(filepath.Join(bin, "arm64/edgeproxy"), []os.FileMode{0o700, 0o777}[i]); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(bin, "arm64/edgeproxy"), time.Time{}, time.Unix(int64(1e9*(i+1)), 0)); err != nil {
			t.Fatal(err)
		}
		if err := run("../..", bin, out, []string{"arm64"}); err != nil {
			t.Fatal(err)
		}
		made[i] = map[string][]byte{}
		names, err := filepath.Glob(filepath.Join(out, "*_arm64.deb"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			body, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			made[i][filepath.Base(name)] = body
		}
	}
	if len(made[0]) != 4 {
		t.Fatalf("%d packages, want 4", len(made[0]))
	}
	for name, body := range made[0] {
		if !slices.Equal(body, made[1][name]) {
			t.Errorf("%s differs from run to run", name)
		}
	}
}

// TestContents has dpkg-deb itself read the packages.
func TestContents(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("needs dpkg-deb")
	}
	out := t.TempDir()
	if err := run("../..", binaries(t), out, []string{"arm64"}); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"edgeproxy", "sitecontroller", "chainagent"} {
		debs, err := filepath.Glob(filepath.Join(out, "meridian-"+program+"_*_arm64.deb"))
		if err != nil || len(debs) != 1 {
			t.Fatal(debs, err)
		}
		text := dpkgDeb(t, "--contents", debs[0]) + dpkgDeb(t, "--info", debs[0]) + "conffiles:\n" + dpkgDeb(t, "--info", debs[0], "conffiles")
		for _, want := range []string{
			"-rwxr-xr-x root/root ", "./usr/bin/" + program, "./usr/lib/systemd/system/meridian-" + program + ".service",
			"./usr/share/man/man8/" + program + ".8.gz", "Architecture: arm64", "Depends: passwd", "conffiles:\n/etc/meridian/" + program + ".env",
			"postinst", "prerm", "postrm", "Section: net",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", program, want, text)
			}
		}
	}
}

func dpkgDeb(t *testing.T, args ...string) string {
	t.Helper()
	text, err := exec.Command("dpkg-deb", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("dpkg-deb %s: %v: %s", args, err, text)
	}
	return string(text)
}
