package route

import "bytes"

// Octets of a path.
const (
	unreserved = 1 << iota // RFC 3986 2.3
	plain                  // stands for itself and needs no look at its neighbours
	hexLower
	hexUpper
	digit
)

var class = func() (t [256]uint8) {
	for c := 0x21; c < 0x7f; c++ {
		t[c] = plain
		switch {
		case '0' <= c && c <= '9':
			t[c] |= unreserved | digit
		case 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z':
			t[c] |= unreserved
		}
		if 'a' <= c && c <= 'f' {
			t[c] |= hexLower
		}
		if 'A' <= c && c <= 'F' {
			t[c] |= hexUpper
		}
	}
	for _, c := range "-._~" {
		t[c] |= unreserved
	}
	for _, c := range "/%?#\\" {
		t[c] &^= plain
	}
	return t
}()

// Normalize brings the path of a request target into the one form that routes
// and policies are judged by and that is forwarded, so that no other server can
// read another path in the same bytes. The query is left as it is.
//
//   - %XX of an unreserved octet becomes the octet, other escapes get upper-case
//     digits (RFC 3986 6.2.2); a broken escape is refused;
//   - "//" becomes "/", and dot segments are taken out (RFC 3986 5.2.4) after
//     decoding, so %2e%2e is one; a path that leaves the root is refused;
//   - a backslash, %5C, %2F and %00 are refused: servers disagree on whether they
//     separate or end a path, and keeping or decoding them is wrong for half of
//     them; so is a dot segment with a parameter ("..;"), which some take for "..";
//   - octets outside visible ASCII, and "#", are refused.
//
// normal is the whole target and path its part before the query. Both borrow from
// target when that is normal already, else from buf, which grows when it must.
// The asterisk of OPTIONS is normal. ok is false for what is refused (400).
func Normalize(target, buf []byte) (normal, path []byte, ok bool) {
	if len(target) == 1 && target[0] == '*' {
		return target, target, true
	}
	if len(target) == 0 || target[0] != '/' {
		return nil, nil, false
	}
	i := 0
	for i < len(target) {
		c := target[i]
		if class[c]&plain != 0 {
			i++
			continue
		}
		switch c {
		case '?':
			return target, target[:i], true
		case '/':
			i++
			if i < len(target) && (target[i] == '/' || dotSegment(target[i:])) {
				return rewrite(target, buf)
			}
		case '%':
			v, n := escape(target[i:])
			if n == 0 || refused(v) {
				return nil, nil, false
			}
			if class[v]&unreserved != 0 || (class[target[i+1]]|class[target[i+2]])&hexLower != 0 {
				return rewrite(target, buf)
			}
			i += n
		default:
			return nil, nil, false
		}
	}
	return target, target, true
}

// rewrite is Normalize for paths that have to change, or may have to.
func rewrite(target, buf []byte) (normal, path []byte, ok bool) {
	out := append(buf[:0], '/')
	element := 1 // where the current element starts in out
	var query []byte
	for i := 1; ; i++ {
		if i == len(target) || target[i] == '/' || target[i] == '?' {
			e := out[element:]
			switch {
			case len(e) == 0:
			case len(e) == 1 && e[0] == '.':
				out = out[:element]
			case len(e) == 2 && e[0] == '.' && e[1] == '.':
				if element == 1 {
					return nil, nil, false
				}
				element = bytes.LastIndexByte(out[:element-1], '/') + 1
				out = out[:element]
			case parameterised(e):
				return nil, nil, false
			case i < len(target) && target[i] == '/':
				out = append(out, '/')
				element = len(out)
			}
			if i < len(target) && target[i] == '/' {
				continue
			}
			query = target[i:]
			break
		}
		c := target[i]
		switch {
		case class[c]&plain != 0:
			out = append(out, c)
		case c == '%':
			v, n := escape(target[i:])
			if n == 0 || refused(v) {
				return nil, nil, false
			}
			if class[v]&unreserved != 0 {
				out = append(out, v)
			} else {
				const digits = "0123456789ABCDEF"
				out = append(out, '%', digits[v>>4], digits[v&15])
			}
			i += n - 1
		default:
			return nil, nil, false
		}
	}
	end := len(out)
	out = append(out, query...)
	return out, out[:end:end], true
}

// dotSegment reports whether an element that is "." or "..", perhaps with a
// parameter, starts b.
func dotSegment(b []byte) bool {
	for i, c := range b {
		if c != '.' || i == 2 {
			return i > 0 && (c == '/' || c == '?' || c == ';')
		}
	}
	return true
}

// parameterised reports a dot segment with a parameter: ".;x" or "..;x".
func parameterised(e []byte) bool {
	return e[0] == '.' && len(e) > 1 && (e[1] == ';' || e[1] == '.' && len(e) > 2 && e[2] == ';')
}

func refused(v byte) bool { return v == '/' || v == '\\' || v == 0 }

// escape reads %XX; n is 0 when it is broken.
func escape(b []byte) (v byte, n int) {
	if len(b) < 3 {
		return 0, 0
	}
	hi, ok1 := nibble(b[1])
	lo, ok2 := nibble(b[2])
	if !ok1 || !ok2 {
		return 0, 0
	}
	return hi<<4 | lo, 3
}

func nibble(c byte) (byte, bool) {
	switch k := class[c]; {
	case k&digit != 0:
		return c - '0', true
	case k&hexLower != 0:
		return c - 'a' + 10, true
	case k&hexUpper != 0:
		return c - 'A' + 10, true
	}
	return 0, false
}
