package join

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/meridian-mesh/meridian/controller/store"
)

// siteFileName is the name of a [SiteFile] in its data folder.
const siteFileName = "site.json"

// SiteFile is <data>/site.json: what a controller has to know of its site, so
// that its folder is all that it must be told. Files are named relative to the
// folder. People may edit it.
type SiteFile struct {
	Site string `json:"site"`
	Hub  bool   `json:"hub,omitempty"`
	// Listen, LeafListen, JoinListen and API are addresses as the flags of
	// sitecontroller have them.
	Listen     string `json:"listen,omitempty"`
	LeafListen string `json:"leafListen,omitempty"`
	JoinListen string `json:"joinListen,omitempty"`
	API        string `json:"api,omitempty"`
	// Advertise are hosts under which other sites reach this hub.
	Advertise []string `json:"advertise,omitempty"`
	// HubURLs, HubCA and HubKey lead a member to its hub.
	HubURLs []string `json:"hubURLs,omitempty"`
	HubCA   string   `json:"hubCA,omitempty"`
	HubKey  string   `json:"hubKey,omitempty"`
	// Config are documents that are applied at each start.
	Config []string `json:"config,omitempty"`
}

// ReadSiteFile reads the file in a data folder; [fs.ErrNotExist] when it has none.
func ReadSiteFile(dir string) (SiteFile, error) {
	path := filepath.Join(dir, siteFileName)
	data, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return SiteFile{}, fs.ErrNotExist
		}
		return SiteFile{}, err
	}
	var s SiteFile
	if err := json.Unmarshal(data, &s); err != nil {
		return SiteFile{}, fmt.Errorf("%s: %w", path, err)
	}
	if s.Site == "" {
		return SiteFile{}, fmt.Errorf("%s: site is missing", path)
	}
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	abs(&s.HubCA)
	abs(&s.HubKey)
	for i := range s.Config {
		abs(&s.Config[i])
	}
	return s, nil
}

// Write replaces the file in a data folder.
func (s SiteFile) Write(dir string) error {
	rel := func(p string) string {
		if r, err := filepath.Rel(dir, p); err == nil && filepath.IsLocal(r) {
			return r
		}
		return p
	}
	s.HubCA, s.HubKey = rel(s.HubCA), rel(s.HubKey)
	config := make([]string, len(s.Config))
	for i, c := range s.Config {
		config[i] = rel(c)
	}
	s.Config = config
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := store.WriteFile(filepath.Join(dir, siteFileName), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	return nil
}
