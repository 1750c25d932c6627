package loadheader

// maxDepth bounds the nesting of objects and lists.
const maxDepth = 8

// scanner reads the few members of a JSON object (RFC 8259) that are of interest
// and skips the others. encoding/json would allocate for each response.
type scanner struct{ rest []byte }

// peek returns the next byte that is not white space, 0 at the end.
func (j *scanner) peek() byte {
	for len(j.rest) > 0 {
		switch c := j.rest[0]; c {
		case ' ', '\t', '\r', '\n':
			j.rest = j.rest[1:]
		default:
			return c
		}
	}
	return 0
}

func (j *scanner) take(c byte) bool {
	if j.peek() != c || c == 0 {
		return false
	}
	j.rest = j.rest[1:]
	return true
}

// object reads an object's members into r; in names the member of the report that
// it is, empty for the report itself.
func (j *scanner) object(r *Report, in string, depth int) bool {
	if depth > maxDepth || !j.take('{') {
		return false
	}
	if j.take('}') {
		return true
	}
	for {
		key, ok := j.text()
		if !ok || !j.take(':') || !j.member(r, in, key, depth) {
			return false
		}
		if !j.take(',') {
			return j.take('}')
		}
	}
}

// member reads the value of a key. Both spellings of a protobuf field's name are
// read, as its JSON mapping asks.
func (j *scanner) member(r *Report, in string, key []byte, depth int) bool {
	c := j.peek()
	number := c == '-' || '0' <= c && c <= '9'
	name := ""
	switch {
	case in == named && number && (string(key) == inFlight || string(key) == serviceTime):
		name = string(key)
	case in != "":
	case string(key) == named || string(key) == "namedMetrics":
		if c == '{' {
			return j.object(r, named, depth+1)
		}
	case number && (string(key) == "cpu_utilization" || string(key) == "cpuUtilization"):
		name = "cpu_utilization"
	case number && (string(key) == "application_utilization" || string(key) == "applicationUtilization"):
		name = "application_utilization"
	}
	if name == "" {
		return j.skip(r, depth)
	}
	text, ok := j.number()
	return ok && r.set(name, text)
}

// skip reads any value and drops it.
func (j *scanner) skip(r *Report, depth int) bool {
	switch c := j.peek(); {
	case c == '{':
		return j.object(r, "other", depth+1)
	case c == '[':
		if depth >= maxDepth {
			return false
		}
		j.rest = j.rest[1:]
		if j.take(']') {
			return true
		}
		for {
			if !j.skip(r, depth+1) {
				return false
			}
			if !j.take(',') {
				return j.take(']')
			}
		}
	case c == '"':
		_, ok := j.text()
		return ok
	case c == '-' || '0' <= c && c <= '9':
		_, ok := j.number()
		return ok
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if len(j.rest) >= len(word) && string(j.rest[:len(word)]) == word {
			j.rest = j.rest[len(word):]
			return true
		}
	}
	return false
}

// text reads a string and returns it as it is written, escapes and all: no name of
// interest has one.
func (j *scanner) text() ([]byte, bool) {
	if !j.take('"') {
		return nil, false
	}
	for i := 0; i < len(j.rest); i++ {
		switch c := j.rest[i]; {
		case c == '"':
			s := j.rest[:i]
			j.rest = j.rest[i+1:]
			return s, true
		case c == '\\':
			n := escape(j.rest[i:])
			if n == 0 {
				return nil, false
			}
			i += n - 1
		case c < ' ':
			return nil, false
		}
	}
	return nil, false
}

// escape returns how long the escape at the start of b is, 0 for none.
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		for _, c := range b[2:6] {
			if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
				return 0
			}
		}
		return 6
	}
	return 0
}

// number reads a number by its grammar.
func (j *scanner) number() ([]byte, bool) {
	j.peek()
	i := 0
	at := func() byte {
		if i < len(j.rest) {
			return j.rest[i]
		}
		return 0
	}
	digits := func() bool {
		from := i
		for c := at(); '0' <= c && c <= '9'; c = at() {
			i++
		}
		return i > from
	}
	if at() == '-' {
		i++
	}
	if at() == '0' {
		i++
	} else if !digits() {
		return nil, false
	}
	if at() == '.' {
		if i++; !digits() {
			return nil, false
		}
	}
	if at()|0x20 == 'e' {
		if i++; at() == '+' || at() == '-' {
			i++
		}
		if !digits() {
			return nil, false
		}
	}
	s := j.rest[:i]
	j.rest = j.rest[i:]
	return s, true
}
