package authz

import "bytes"

// maxUnfold bounds how often a path is decoded: what still has escapes then is made
// to mislead.
const maxUnfold = 4

// easy are the octets of paths that no server changes.
var easy = func() (t [256]bool) {
	for _, c := range "abcdefghijklmnopqrstuvwxyz0123456789/-_~!$&'()*+,:=@" {
		t[c] = true
	}
	return t
}()

// plain reports whether all servers read a path as it stands, but for a slash at its end.
func plain(p []byte) bool {
	for i, c := range p {
		if easy[c] && (c != '/' || i == 0 || p[i-1] != '/') {
			continue
		}
		if c != '.' || i+1 == len(p) || p[i+1] == '/' {
			return false
		}
	}
	return true
}

// lighten is a normal path in lower case, without parameters (";x") and slashes at
// its end: as servers see it that do not decode it again.
func lighten(p, buf []byte) []byte {
	out := buf[:0]
	skip := false
	for _, c := range p {
		switch {
		case c == '/':
			skip = false
		case c == ';':
			skip = true
		}
		if !skip {
			out = append(out, lower(c))
		}
	}
	return bytes.TrimRight(out, "/")
}

// fold is the path that the most lenient of servers sees in a normal one: decoded until
// no escape is left, overlong and full-width letters too, backslashes as slashes, in
// lower case, without parameters, dots and blanks at the end of its elements, empty
// elements, dot segments and slashes at its end. It is not clear where that leaves
// the root, or what it holds is no text.
func fold(p, buf []byte) (folded []byte, clear bool) {
	out := buf[:0]
	if len(p) == 0 || p[0] != '/' {
		out = append(out, '/')
	}
	out = append(out, p...)
	for n := 0; ; n++ {
		decoded, more := unescape(out)
		before := len(decoded)
		if out = letters(decoded); !more && len(out) == before {
			break
		}
		if n == maxUnfold {
			return out[:0], false
		}
	}
	if i := bytes.IndexAny(out, "?#"); i >= 0 {
		out = out[:i]
	}
	for i, c := range out {
		if c < ' ' || c == 0x7f {
			return out[:0], false
		}
		out[i] = lower(c)
	}
	return elements(out)
}

// elements resolves what is between slashes, in place.
func elements(p []byte) (folded []byte, clear bool) {
	at := 0 // written so far: never more than read
	for i := 0; i < len(p); {
		end := i
		for end < len(p) && p[end] != '/' {
			end++
		}
		e := p[i:end]
		i = end + 1
		if k := bytes.IndexByte(e, ';'); k >= 0 {
			e = e[:k]
		}
		if string(e) == ".." {
			if at == 0 {
				return p[:0], false
			}
			at = max(bytes.LastIndexByte(p[:at], '/'), 0)
			continue
		}
		if e = bytes.TrimRight(e, ". "); len(e) == 0 {
			continue
		}
		p[at] = '/'
		at += 1 + copy(p[at+1:], e)
	}
	return p[:at], true
}

// unescape decodes %XX once, in place, and reports whether there was any.
func unescape(p []byte) ([]byte, bool) {
	i := bytes.IndexByte(p, '%')
	if i < 0 {
		return p, false
	}
	out, more := p[:i], false
	for ; i < len(p); i++ {
		if p[i] == '%' && i+2 < len(p) {
			hi, ok1 := nibble(p[i+1])
			lo, ok2 := nibble(p[i+2])
			if ok1 && ok2 {
				out = append(out, hi<<4|lo)
				more = true
				i += 2
				continue
			}
		}
		out = append(out, p[i])
	}
	return out, more
}

// letters turns backslashes, overlong forms of ASCII in two octets and full-width
// letters (U+FF01 to U+FF5E) into what lenient servers take them for, in place.
func letters(p []byte) []byte {
	out := p[:0]
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch {
		case c == '\\':
			c = '/'
		case (c == 0xc0 || c == 0xc1) && i+1 < len(p) && p[i+1]>>6 == 2:
			c = c<<6 | p[i+1]&0x3f
			i++
			if c == '\\' {
				c = '/'
			}
		case c == 0xef && i+2 < len(p) && (p[i+1] == 0xbc || p[i+1] == 0xbd) && p[i+2]>>6 == 2:
			// U+FF00 + x is EF BC 80 + x.
			if x := (p[i+1]-0xbc)<<6 | p[i+2]&0x3f; x >= 1 && x <= 0x5e {
				c = x + 0x20
				i += 2
				if c == '\\' {
					c = '/'
				}
			}
		}
		out = append(out, c)
	}
	return out
}

func nibble(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}
