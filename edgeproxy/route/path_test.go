package route

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestNormalize(t *testing.T) {
	const refuse = "\x00"
	for _, c := range []struct{ name, in, want string }{
		{"root", "/", "/"},
		{"plain", "/shop/items/4711", "/shop/items/4711"},
		{"trailing slash stays", "/shop/", "/shop/"},
		{"query is left alone", "/a?b=//../%2f%zz#", "/a?b=//../%2f%zz#"},
		{"query after a rewrite", "//a?b=//..", "/a?b=//.."},
		{"empty query", "/a?", "/a?"},
		{"asterisk", "*", "*"},
		{"sub-delimiters", "/a!$&'()*+,;=:@b", "/a!$&'()*+,;=:@b"},
		{"duplicate slashes", "//a///b//", "/a/b/"},
		{"dot", "/a/./b", "/a/b"},
		{"dot at the end", "/a/.", "/a/"},
		{"dot dot", "/a/b/../c", "/a/c"},
		{"dot dot at the end", "/a/b/..", "/a/"},
		{"dot dot to the root", "/a/..", "/"},
		{"dot dot after duplicate slashes", "/a//../b", "/b"},
		{"dotted names are names", "/.well-known/...", "/.well-known/..."},
		{"name that starts with dots", "/..a/.b", "/..a/.b"},
		{"name that ends in dots", "/a../b.", "/a../b."},
		{"unreserved decoded", "/%61%2D%5F%7e", "/a-_~"},
		{"escapes in upper case", "/caf%c3%a9", "/caf%C3%A9"},
		{"normal escapes stay", "/caf%C3%A9%20x", "/caf%C3%A9%20x"},
		{"encoded percent is not decoded twice", "/%252e%252e/a", "/%252e%252e/a"},
		{"encoded question mark stays in the path", "/a%3Fb", "/a%3Fb"},
		{"encoded semicolon stays", "/..%3Bx", "/..%3Bx"},
		{"CVE-2019-9901: encoded dot dot", "/public/%2e%2e/admin", "/admin"},
		{"half encoded dot dot", "/public/.%2E/admin", "/admin"},
		{"above the root", "/../etc/passwd", refuse},
		{"above the root later", "/a/../../b", refuse},
		{"above the root, encoded", "/%2e%2e/b", refuse},
		{"encoded slash", "/public%2F..%2Fadmin", refuse},
		{"encoded slash, lower case", "/a%2fb", refuse},
		{"encoded slash after a rewrite", "//a%2fb", refuse},
		{"CVE-2021-32779 kin: fragment", "/a#/../admin", refuse},
		{"backslash", "/a\\..\\b", refuse},
		{"encoded backslash", "/a%5C..%5Cb", refuse},
		{"encoded backslash after a rewrite", "/./a%5cb", refuse},
		{"encoded NUL", "/admin%00.html", refuse},
		{"broken escape", "/%zz", refuse},
		{"short escape", "/a%4", refuse},
		{"lone percent", "/100%", refuse},
		{"escape cut by the query", "/a%4?1", refuse},
		{"broken escape after a rewrite", "//%g0", refuse},
		{"dot dot with a parameter", "/public/..;/admin", refuse},
		{"dot dot with a longer parameter", "/public/..;a=b/admin", refuse},
		{"encoded dot dot with a parameter", "/public/%2e%2e;/admin", refuse},
		{"dot with a parameter", "/public/.;/admin", refuse},
		{"parameter of a name", "/a;v=1/b", "/a;v=1/b"},
		{"space", "/a b", refuse},
		{"control", "/a\x01b", refuse},
		{"DEL", "/a\x7fb", refuse},
		{"raw UTF-8", "/caf\xc3\xa9", refuse},
		{"control after a rewrite", "//a\nb", refuse},
		{"empty", "", refuse},
		{"no leading slash", "a/b", refuse},
		{"only a query", "?a", refuse},
	} {
		t.Run(c.name, func(t *testing.T) {
			normal, path, ok := Normalize([]byte(c.in), make([]byte, 0, 64))
			if !ok {
				if c.want != refuse {
					t.Fatalf("%q refused, want %q", c.in, c.want)
				}
				return
			}
			if string(normal) != c.want {
				t.Fatalf("%q became %q, want %q", c.in, normal, c.want)
			}
			if want, _, _ := strings.Cut(c.want, "?"); string(path) != want {
				t.Errorf("path %q, want %q", path, want)
			}
		})
	}
}

// naiveNormalize says the same with splitting and joining.
func naiveNormalize(target string) (string, bool) {
	if target == "*" {
		return target, true
	}
	path, query, hasQuery := strings.Cut(target, "?")
	if !strings.HasPrefix(path, "/") {
		return "", false
	}
	var elements []string
	parts := strings.Split(path[1:], "/")
	for k, part := range parts {
		var e strings.Builder
		for part != "" {
			c := part[0]
			switch {
			case c <= 0x20 || c >= 0x7f || c == '\\' || c == '#':
				return "", false
			case c != '%':
				e.WriteByte(c)
				part = part[1:]
				continue
			case len(part) < 3:
				return "", false
			}
			hi, lo := strings.IndexByte("0123456789abcdef", part[1]|0x20), strings.IndexByte("0123456789abcdef", part[2]|0x20)
			if hi < 0 || lo < 0 || part[1] < '0' || part[2] < '0' {
				return "", false
			}
			v := byte(hi*16 + lo)
			switch {
			case v == 0 || v == '/' || v == '\\':
				return "", false
			case strings.IndexByte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~", v) >= 0:
				e.WriteByte(v)
			default:
				e.WriteString("%" + strings.ToUpper(part[1:3]))
			}
			part = part[3:]
		}
		s, last := e.String(), k == len(parts)-1
		switch {
		case strings.HasPrefix(s, ".;") || strings.HasPrefix(s, "..;"):
			return "", false
		case s == "..":
			if len(elements) == 0 {
				return "", false
			}
			elements = elements[:len(elements)-1]
			s = ""
		case s == ".":
			s = ""
		}
		if s != "" || last {
			elements = append(elements, s)
		}
	}
	out := "/" + strings.Join(elements, "/")
	if hasQuery {
		out += "?" + query
	}
	return out, true
}

func compareNormalize(t *testing.T, in string) {
	t.Helper()
	normal, path, ok := Normalize([]byte(in), nil)
	want, wantOK := naiveNormalize(in)
	if ok != wantOK || ok && string(normal) != want {
		t.Fatalf("%q: got %q %v, twin says %q %v", in, normal, ok, want, wantOK)
	}
	if !ok {
		return
	}
	if bytes.IndexByte(path, '?') >= 0 || !bytes.HasPrefix(normal, path) {
		t.Fatalf("%q: path %q of %q", in, path, normal)
	}
	again, _, ok := Normalize(normal, nil)
	if !ok || &again[0] != &normal[0] {
		t.Fatalf("%q: %q is not normal", in, normal)
	}
}

func TestNormalizeTwin(t *testing.T) {
	pieces := []string{"/", "/", "/", ".", "..", "a", "b", "%2e", "%2E", "%61", "%c3", "%20", "%2f", "%5c", "%00", "%", "%4", "?", ";", "\\", "#", " ", "*"}
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 50000 {
		in := "/"
		for range rnd.IntN(8) {
			// the refusing pieces at the end of the list come rarely, or little is accepted
			n := len(pieces)
			if rnd.IntN(4) > 0 {
				n = 12
			}
			in += pieces[rnd.IntN(n)]
		}
		compareNormalize(t, in)
	}
}

func FuzzNormalize(f *testing.F) {
	for _, s := range []string{"/", "*", "/a/../b", "/%2e%2e/x?y=/../", "//a/.;/b", "/%c3%a9"} {
		f.Add(s)
	}
	f.Fuzz(compareNormalize)
}
