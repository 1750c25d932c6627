package admin

import (
	"math"
	"strconv"
	"strings"
)

// Kinds of metric families.
const (
	counter   = "counter"
	gauge     = "gauge"
	histogram = "histogram"
)

// Text writes the Prometheus text format, version 0.0.4. Samples belong to the
// family opened last.
type Text struct {
	b      []byte
	family string
}

// Family opens a family. Its samples must follow before the next one is opened.
func (t *Text) Family(name, kind, help string) {
	t.family = name
	t.b = append(t.b, "# HELP "...)
	t.b = append(t.b, name...)
	t.b = append(t.b, ' ')
	t.b = append(t.b, strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(help)...)
	t.b = append(t.b, "\n# TYPE "...)
	t.b = append(t.b, name...)
	t.b = append(t.b, ' ')
	t.b = append(t.b, kind...)
	t.b = append(t.b, '\n')
}

// Value adds a sample; labels are name, value, name, value.
func (t *Text) Value(v float64, labels ...string) { t.sample("", v, labels) }

// Count adds a sample of a whole number.
func (t *Text) Count(n uint64, labels ...string) { t.sample("", float64(n), labels) }

// Bool adds 1 or 0.
func (t *Text) Bool(b bool, labels ...string) {
	v := 0.0
	if b {
		v = 1
	}
	t.sample("", v, labels)
}

// Histogram adds a histogram: counts[i] observations were at most bounds[i], and
// counts[len(bounds)] beyond the last; counts are not cumulative.
func (t *Text) Histogram(bounds []float64, counts []uint64, sum float64, labels ...string) {
	total := uint64(0)
	for i, n := range counts {
		total += n
		le := "+Inf"
		if i < len(bounds) {
			le = strconv.FormatFloat(bounds[i], 'g', -1, 64)
		}
		t.sample("_bucket", float64(total), append(labels[:len(labels):len(labels)], "le", le))
	}
	t.sample("_sum", sum, labels)
	t.sample("_count", float64(total), labels)
}

func (t *Text) sample(suffix string, v float64, labels []string) {
	t.b = append(t.b, t.family...)
	t.b = append(t.b, suffix...)
	for i := 0; i+1 < len(labels); i += 2 {
		if i == 0 {
			t.b = append(t.b, '{')
		} else {
			t.b = append(t.b, ',')
		}
		t.b = append(t.b, labels[i]...)
		t.b = append(t.b, `="`...)
		t.b = appendEscaped(t.b, labels[i+1])
		t.b = append(t.b, '"')
	}
	if len(labels) > 1 {
		t.b = append(t.b, '}')
	}
	t.b = append(t.b, ' ')
	switch {
	case math.IsInf(v, 1):
		t.b = append(t.b, "+Inf"...)
	case math.IsInf(v, -1):
		t.b = append(t.b, "-Inf"...)
	default:
		t.b = strconv.AppendFloat(t.b, v, 'g', -1, 64)
	}
	t.b = append(t.b, '\n')
}

func appendEscaped(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '\\', '"':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		default:
			b = append(b, c)
		}
	}
	return b
}
