package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestMetricsOf(t *testing.T) {
	folder := t.TempDir()
	put := func(name, body string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte("package p\n"+body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("a.go", `func f(t T) {
	t.Family("x_total", counter, "Xs.")
	each("y", gauge, "Ys.", func() {})
	rows := []row{{"meridian_z_total", "Zs.", nil}}
	t.Family(name, kind, help)
}`)
	put("a_test.go", `func g(t T) { t.Family("no", counter, "Not this.") }`)
	got, err := metricsOf(folder, "")
	if err != nil {
		t.Fatal(err)
	}
	if want := []metric{{"meridian_z_total", "counter", "Zs."}, {"x_total", "counter", "Xs."}, {"y", "gauge", "Ys."}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	put("b.go", `func h(t T) { t.Family("y", counter, "Ys.") }`)
	if _, err := metricsOf(folder, ""); err == nil || !strings.Contains(err.Error(), "y is said to be two things") {
		t.Errorf("two kinds: %v", err)
	}
	if _, err := metricsOf(t.TempDir(), ""); err == nil {
		t.Error("a package without metrics is no fault")
	}
}
