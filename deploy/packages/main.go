// Command packages makes the Debian packages of Meridian from binaries that are built
// already: `make packages` builds them and runs it. It is a module of its own, since
// the library that writes the packages belongs into no program of Meridian.
//
// The same commit gives the same bytes, on whatever machine and whenever: times are the
// commit's (or SOURCE_DATE_EPOCH's).
package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
)

func main() {
	bin := flag.String("bin", "bin", "`folder` of the binaries: ARCH/PROGRAM in it, and meridian itself for this machine")
	root := flag.String("root", ".", "`folder` of the repository")
	out := flag.String("out", "bin/packages", "`folder` to write to")
	archs := flag.String("archs", "amd64,arm64", "architectures, `names` of Go with commas between")
	flag.Parse()
	if err := run(*root, *bin, *out, strings.Split(*archs, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "packages:", err)
		os.Exit(1)
	}
}

func run(root, bin, out string, archs []string) error {
	version, committed, err := fromGit(root)
	if err != nil {
		return err
	}
	when, err := buildTime(os.Getenv("SOURCE_DATE_EPOCH"), committed)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "meridian-packages-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := documents(root, filepath.Join(bin, "meridian"), filepath.Join(work, "doc"), when); err != nil {
		return err
	}
	configs, err := filepath.Glob(filepath.Join(root, "deploy/packages/meridian*.yaml"))
	if err != nil || len(configs) == 0 {
		return errors.Join(fmt.Errorf("%s/deploy/packages has no meridian*.yaml", root), err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, arch := range archs {
		for _, config := range configs {
			p := pack{root: root, bin: filepath.Join(bin, arch), doc: filepath.Join(work, "doc"), version: version, arch: arch, when: when}
			name, err := p.write(config, out)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", filepath.Base(config), arch, err)
			}
			fmt.Println(name)
		}
	}
	return nil
}

// fromGit is the version as Debian orders versions, and the time of the commit.
func fromGit(root string) (version string, committed time.Time, err error) {
	git := func(args ...string) string {
		cmd := exec.Command("git", append([]string{"-C", root}, args...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		text, gerr := cmd.Output()
		if gerr != nil {
			err = errors.Join(err, fmt.Errorf("git %s: %w: %s", args[0], gerr, &stderr))
		}
		return strings.TrimSpace(string(text))
	}
	described := git("describe", "--tags", "--long", "--always", "--dirty")
	seconds := git("log", "-1", "--format=%ct")
	if err != nil {
		return "", committed, err
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return "", committed, fmt.Errorf("time of the commit: %w", err)
	}
	committed = time.Unix(n, 0).UTC()
	version, err = debianVersion(described, committed)
	return version, committed, err
}

var (
	tagged   = regexp.MustCompile(`^v([0-9]+\.[0-9]+\.[0-9]+)(?:-([0-9A-Za-z.]+))?-([0-9]+)-g([0-9a-f]+)(-dirty)?$`)
	untagged = regexp.MustCompile(`^([0-9a-f]+)(-dirty)?$`)
)

// debianVersion orders as history does: 1.2.0~rc.1 < 1.2.0 < 1.2.0+3.gabc < 1.2.1, and
// before the first tag by the commit's time.
func debianVersion(described string, committed time.Time) (string, error) {
	v, dirty := "", ""
	if m := tagged.FindStringSubmatch(described); m != nil {
		v, dirty = m[1], m[5]
		if m[2] != "" {
			v += "~" + m[2]
		}
		if m[3] != "0" {
			v += "+" + m[3] + ".g" + m[4]
		}
	} else if m := untagged.FindStringSubmatch(described); m != nil {
		v, dirty = "0.0.0+"+committed.Format("20060102150405")+".g"+m[1], m[2]
	} else {
		return "", fmt.Errorf("git describe says %q: want a tag such as v1.2.3 or v1.2.3-rc.1", described)
	}
	return v + strings.Replace(dirty, "-", "+", 1), nil
}

// buildTime is what all files are said to be changed at.
func buildTime(epoch string, committed time.Time) (time.Time, error) {
	if epoch == "" {
		return committed, nil
	}
	n, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q: want seconds since 1970", epoch)
	}
	return time.Unix(n, 0).UTC(), nil
}

// pack is what a package is made of.
type pack struct {
	root, bin, doc string // folders that a config's bin/, doc/ and others stand for
	version, arch  string
	when           time.Time
}

// write makes one package and returns its path.
func (p pack) write(config, out string) (path string, err error) {
	c, err := nfpm.ParseFile(config)
	if err != nil {
		return "", err
	}
	info := &c.Info
	info.Version, info.VersionSchema, info.Arch, info.Platform, info.MTime = p.version, "none", p.arch, "linux", p.when
	info.Prerelease = "" // the library's default where a config has no version
	info.Deb.Compression = "zstd"
	for _, f := range info.Contents {
		f.Source = p.source(f.Source)
		if f.FileInfo == nil {
			f.FileInfo = &files.ContentFileInfo{}
		}
		if f.FileInfo.Mode == 0 && f.Type != files.TypeDir {
			f.FileInfo.Mode = 0o644
		}
		f.FileInfo.Owner, f.FileInfo.Group, f.FileInfo.MTime = "root", "root", p.when
	}
	for _, script := range []*string{&info.Scripts.PostInstall, &info.Scripts.PreRemove, &info.Scripts.PostRemove} {
		*script = p.source(*script)
	}
	if err := nfpm.PrepareForPackager(info, "deb"); err != nil {
		return "", err
	}
	deb, err := nfpm.Get("deb")
	if err != nil {
		return "", err
	}
	path = filepath.Join(out, deb.ConventionalFileName(info))
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return path, deb.Package(info, f)
}

// source is where a file of a config lies.
func (p pack) source(name string) string {
	switch folder, rest, _ := strings.Cut(name, "/"); {
	case name == "":
		return ""
	case folder == "bin":
		return filepath.Join(p.bin, rest)
	case folder == "doc":
		return filepath.Join(p.doc, rest)
	default:
		return filepath.Join(p.root, "deploy/packages", name)
	}
}

// documents writes what is the same for all architectures: completion, manuals, licence.
func documents(root, meridian, out string, when time.Time) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	made := map[string][]byte{}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		text, err := exec.Command(meridian, "completion", shell).Output()
		if err != nil {
			return fmt.Errorf("%s completion %s: %w", meridian, shell, err)
		}
		made[shell+"-completion"] = text
	}
	for program, section := range map[string]int{"meridian": 1, "edgeproxy": 8, "sitecontroller": 8, "chainagent": 8} {
		reference, err := os.ReadFile(filepath.Join(root, "docs/reference/cli", program+".md"))
		if err != nil {
			return err
		}
		page, err := manual(program, section, string(reference), when)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(z, page); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		made[fmt.Sprintf("%s.%d.gz", program, section)] = b.Bytes()
	}
	licence, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		return err
	}
	made["copyright"] = licence
	for _, name := range slices.Sorted(maps.Keys(made)) {
		if err := os.WriteFile(filepath.Join(out, name), made[name], 0o644); err != nil {
			return err
		}
	}
	return nil
}
