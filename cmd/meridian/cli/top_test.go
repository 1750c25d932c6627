package cli

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
)

// The screen follows keys, sizes and what looks bring.
func TestTopScreen(t *testing.T) {
	many := sheet{Name: "services", Head: []string{"SERVICE", "SITE"}}
	for i := range 30 {
		many.Rows = append(many.Rows, []string{fmt.Sprintf("default/s%02d", i), "north"})
	}
	at := time.Unix(100, 0)
	m := &topModel{
		every: time.Second, at: at, width: 40, height: 12,
		load:   func() ([]sheet, error) { return nil, errors.New("gone") },
		sheets: []sheet{{Name: "sites", Head: []string{"SITE", "STATUS"}, Rows: [][]string{{"north", "alive"}}}, many},
	}
	see := func() string { return m.screen(at.Add(3 * time.Second)) }
	wants := func(what string, texts ...string) {
		t.Helper()
		for _, w := range texts {
			if !strings.Contains(see(), w) {
				t.Errorf("%s: %q is missing:\n%s", what, w, see())
			}
		}
	}
	wants("at first", "[1 sites]", "north  alive", "3.0s old")
	m.key("2")
	wants("the second table", "[2 services]", "default/s00", "default/s06")
	if strings.Contains(see(), "default/s07") {
		t.Errorf("more rows than the screen has:\n%s", see())
	}
	for range 50 {
		m.key("down")
	}
	wants("scrolled to the end", "default/s29")
	m.key("tab")
	wants("around", "[1 sites]")
	m.key("9")
	wants("no such table", "[1 sites]")
	for _, l := range strings.Split(see(), "\n")[2:] {
		if n := len([]rune(strings.NewReplacer(bold, "", plain, "").Replace(l))); n > 40 {
			t.Errorf("%d wide: %q", n, l)
		}
	}
	m.Update(tea.WindowSizeMsg{Width: 200, Height: 50})
	_, cmd := m.Update(lookAgain{})
	m.Update(cmd())
	wants("an answer that failed", "no answer: gone", "north  alive")
	m.Update(looked{sheets: []sheet{{Name: "sites", Head: []string{"SITE"}, Rows: [][]string{{"south"}}}}, at: at})
	wants("a new answer", "south")
	if strings.Contains(see(), "gone") {
		t.Error("the old fault stays")
	}
	m.key("p")
	if wants("paused", "paused"); !m.paused {
		t.Error("not paused")
	}
	if _, cmd := m.key("q"); cmd == nil {
		t.Error("q does not end it")
	}
}
