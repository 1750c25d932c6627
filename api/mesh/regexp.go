package mesh

import (
	"fmt"
	"regexp"
	"regexp/syntax"
)

// MaxRegexpSize bounds the instructions of a compiled expression, because the
// time to match one octet grows with them: /users/[0-9]+ has 12.
const MaxRegexpSize = 256

// CompileRegexp compiles an expression of a match (RE2 syntax), which must match
// the whole of a value. It refuses one of more than [MaxRegexpSize] instructions.
func CompileRegexp(pattern string) (*regexp.Regexp, error) {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if n := len(prog.Inst); n > MaxRegexpSize {
		return nil, fmt.Errorf("the expression compiles to %d instructions, at most %d are allowed", n, MaxRegexpSize)
	}
	return regexp.Compile(`\A(?:` + pattern + `)\z`)
}
