package mesh

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
)

// Bounds of what is decoded. The soft messages stay under the bus's own limit.
const (
	MaxSnapshotBytes = 32 << 20
	MaxMessageBytes  = 1 << 20
)

// message is soft state: it names its site, and none of its numbers is negative.
type message interface {
	*Weights | *Report | *NodeReport | *NodeTraffic | *TrafficReport
	compat() Compat
	site() string
}

func (c Compat) compat() Compat    { return c }
func (w *Weights) site() string    { return w.Site }
func (r *Report) site() string     { return r.Site }
func (r *NodeReport) site() string { return r.Site }

// EncodeWeights returns w as JSON; a NaN, infinite or negative number is an error.
func EncodeWeights(w *Weights) ([]byte, error) { return encode(w) }

// DecodeWeights reads what a neighbouring version's [EncodeWeights] wrote. Unknown
// fields are ignored unless [Compat] forbids it; numbers are as there.
func DecodeWeights(data []byte) (*Weights, error) { return decode(data, new(Weights)) }

// EncodeReport is [EncodeWeights] for a Report.
func EncodeReport(r *Report) ([]byte, error) { return encode(r) }

// DecodeReport is [DecodeWeights] for a Report.
func DecodeReport(data []byte) (*Report, error) { return decode(data, new(Report)) }

// EncodeNodeReport is [EncodeWeights] for a NodeReport.
func EncodeNodeReport(r *NodeReport) ([]byte, error) { return encode(r) }

// DecodeNodeReport is [DecodeWeights] for a NodeReport.
func DecodeNodeReport(data []byte) (*NodeReport, error) { return decode(data, new(NodeReport)) }

func encode[M message](m M) ([]byte, error) {
	if err := sound(m); err != nil {
		return nil, fmt.Errorf("encode %T: %w", m, err)
	}
	return json.Marshal(m)
}

func decode[M message](data []byte, m M) (M, error) {
	if len(data) > MaxMessageBytes {
		return nil, fmt.Errorf("decode %T: %d bytes, at most %d are read", m, len(data), MaxMessageBytes)
	}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("decode %T: %w", m, err)
	}
	if err := m.compat().Check(); err != nil {
		return nil, fmt.Errorf("decode %T: %w", m, err)
	}
	if err := sound(m); err != nil {
		return nil, fmt.Errorf("decode %T: %w", m, err)
	}
	return m, nil
}

func sound[M message](m M) error {
	if m.site() == "" {
		return fmt.Errorf("site is missing")
	}
	return numbers(reflect.ValueOf(m).Elem(), nil)
}

// numbers refuses NaN, infinities and negative numbers anywhere in v: every
// number of a soft message is a count, a rate, a share or a time.
func numbers(v reflect.Value, p *path) error {
	switch v.Kind() {
	case reflect.Float64:
		if x := v.Float(); x < 0 || math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("%s: %v is not a number from 0 up", p, x)
		}
	case reflect.Int:
		if v.Int() < 0 {
			return fmt.Errorf("%s: %d is negative", p, v.Int())
		}
	case reflect.Pointer:
		if !v.IsNil() {
			return numbers(v.Elem(), p)
		}
	case reflect.Slice:
		for i := range v.Len() {
			if err := numbers(v.Index(i), p.item(i)); err != nil {
				return err
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if err := numbers(it.Value(), p.key(it.Key().String())); err != nil {
				return err
			}
		}
	case reflect.Struct:
		if v.Type().PkgPath() != reflect.TypeFor[Weights]().PkgPath() {
			return nil // time.Time
		}
		for _, f := range fieldsOf(v.Type()) {
			if err := numbers(v.FieldByIndex(f.index), p.field(f.name)); err != nil {
				return err
			}
		}
	}
	return nil
}
