// Package dashboard is the web page of a site's controller: the map of the mesh as it
// is seen from there, and what an operator may do about it. The page is embedded and
// asks only the controller that served it, so it works for a site that is cut off.
//
// Its program is plain JavaScript with types in comments: building the product needs
// nothing but Go, and `make test-web` has the types checked.
package dashboard

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
)

//go:embed assets
var assets embed.FS

// policy is strict: nothing from elsewhere, nothing inline, no frame around it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
}

// Register adds the page and what it loads to a server's routes.
func Register(mux *http.ServeMux) error {
	files, err := fs.ReadDir(assets, "assets")
	if err != nil {
		return fmt.Errorf("dashboard: %w", err)
	}
	for _, f := range files {
		kind, ok := contentTypes[path.Ext(f.Name())]
		if !ok {
			continue // not for browsers
		}
		data, err := assets.ReadFile("assets/" + f.Name())
		if err != nil {
			return fmt.Errorf("dashboard: %w", err)
		}
		at := "/" + f.Name()
		if f.Name() == "index.html" {
			at = "/{$}"
		}
		mux.Handle("GET "+at, serve(kind, data))
	}
	return nil
}

func serve(kind string, data []byte) http.Handler {
	sum := sha256.Sum256(data)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", kind)
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		// Asked again each time: another version may have been started.
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(data) // fails only when the reader left
	})
}
