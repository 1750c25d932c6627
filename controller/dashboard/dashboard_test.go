package dashboard

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func serving(t *testing.T) http.Handler {
	t.Helper()
	mux := http.NewServeMux()
	if err := Register(mux); err != nil {
		t.Fatal(err)
	}
	return mux
}

func get(h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if len(header) == 2 {
		r.Header.Set(header[0], header[1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Everything that the page names is served, typed, under the strict policy, and what
// is for developers only is not.
func TestServed(t *testing.T) {
	h := serving(t)
	page := get(h, "/")
	if page.Code != 200 || !strings.Contains(page.Body.String(), `src="app.js"`) {
		t.Fatalf("the page: %d\n%s", page.Code, page.Body)
	}
	named := regexp.MustCompile(`(?:src|href)="([a-z.]+)"`).FindAllStringSubmatch(page.Body.String(), -1)
	named = append(named, regexp.MustCompile(`from "\./([a-z.]+)"`).FindAllStringSubmatch(get(h, "/app.js").Body.String(), -1)...)
	if len(named) < 5 {
		t.Errorf("only %v is named", named)
	}
	for _, m := range append(named, []string{"", ""}) {
		w := get(h, "/"+m[1])
		if w.Code != 200 || w.Header().Get("Content-Security-Policy") != policy || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("/%s: %d %v", m[1], w.Code, w.Header())
		}
		if w := get(h, "/"+m[1], "If-None-Match", w.Header().Get("ETag")); w.Code != 304 || w.Body.Len() > 0 {
			t.Errorf("/%s again: %d", m[1], w.Code)
		}
	}
	for _, path := range []string{"/tsconfig.json", "/index.html", "/x", "/assets/app.js"} {
		if w := get(h, path); w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// The page works offline and under its policy: no address from elsewhere, no style or
// script inline.
func TestNothingFromElsewhere(t *testing.T) {
	elsewhere := regexp.MustCompile(`(?i)(https?:)?//[a-z0-9]|@import url|<script>|<style| style=| on[a-z]+=|innerHTML|eval\(`)
	err := fs.WalkDir(assets, "assets", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := assets.ReadFile(path)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(data), "\n") {
			// The names of namespaces are no addresses.
			line = strings.ReplaceAll(line, "http://www.w3.org/2000/svg", "")
			if m := elsewhere.FindString(line); m != "" {
				t.Errorf("%s:%d: %s", path, i+1, m)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
