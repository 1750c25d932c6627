package traffic

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// csvColumns are the columns of a matrix as a table; the last may be missing.
var csvColumns = []string{"from", "to", "requestBytesPerS", "responseBytesPerS", "requestsPerS"}

// ReadCSV reads a matrix as a table with one edge a row: from, to,
// requestBytesPerS, responseBytesPerS and, where it is known, requestsPerS; the
// first row names the columns. Workloads are namespace/name or
// cluster/namespace/name. A table has one figure for each edge, which is taken for
// both means. Rows of the same pair add up.
func ReadCSV(r io.Reader) (*Matrix, error) {
	in := csv.NewReader(r)
	in.Comment, in.TrimLeadingSpace = '#', true
	head, err := in.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("traffic matrix: it is empty: want the columns %s", strings.Join(csvColumns, ","))
	}
	if err != nil {
		return nil, fmt.Errorf("traffic matrix: %w", err)
	}
	if len(head) < len(csvColumns)-1 || len(head) > len(csvColumns) || !slices.Equal(head, csvColumns[:len(head)]) {
		return nil, fmt.Errorf("traffic matrix: line 1: the columns are %s, want %s", strings.Join(head, ","), strings.Join(csvColumns, ","))
	}
	var m Matrix
	for {
		row, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("traffic matrix: %w", err)
		}
		e, err := edgeOf(row)
		if err != nil {
			line, _ := in.FieldPos(0)
			return nil, fmt.Errorf("traffic matrix: line %d: %w", line, err)
		}
		if m.Edges = append(m.Edges, e); len(m.Edges) > MaxEdges {
			return nil, fmt.Errorf("traffic matrix: more than %d edges", MaxEdges)
		}
	}
	out := Merge(&m)
	if err := out.Check(); err != nil {
		return nil, fmt.Errorf("traffic matrix: %w", err)
	}
	return out, nil
}

func edgeOf(row []string) (e Edge, err error) {
	if e.From, err = parseWorkload(row[0]); err != nil {
		return e, fmt.Errorf("from: %w", err)
	}
	if e.To, err = parseWorkload(row[1]); err != nil {
		return e, fmt.Errorf("to: %w", err)
	}
	for i, dst := range []*float64{&e.Recent.RequestBytesPerS, &e.Recent.ResponseBytesPerS, &e.Recent.RequestsPerS}[:len(row)-2] {
		if *dst, err = strconv.ParseFloat(strings.TrimSpace(row[i+2]), 64); err != nil {
			return e, fmt.Errorf("%s: %q is not a number", csvColumns[i+2], row[i+2])
		}
	}
	e.Steady = e.Recent
	return e, nil
}

func parseWorkload(s string) (mesh.Workload, error) {
	p := strings.Split(strings.TrimSpace(s), "/")
	if slices.Contains(p, "") || len(p) < 2 || len(p) > 3 {
		return mesh.Workload{}, fmt.Errorf("%q is no workload: want namespace/name or cluster/namespace/name", s)
	}
	if len(p) == 2 {
		p = append([]string{""}, p...)
	}
	return mesh.Workload{Cluster: p[0], Namespace: p[1], Name: p[2]}, nil
}
