package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	tea "charm.land/bubbletea/v2"
)

// topModel is top on a terminal.
type topModel struct {
	load   func() ([]sheet, error)
	every  time.Duration
	sheets []sheet
	at     time.Time // of sheets
	err    error     // of the last look
	paused bool
	shown  int // sheet
	from   int // first row on the screen
	width  int
	height int
}

// looked is what a look brought.
type looked struct {
	sheets []sheet
	err    error
	at     time.Time
}

// lookAgain says that it is time to look.
type lookAgain struct{}

// Init implements tea.Model.
func (m *topModel) Init() tea.Cmd { return m.later() }

func (m *topModel) later() tea.Cmd {
	return tea.Tick(m.every, func(time.Time) tea.Msg { return lookAgain{} })
}

// Update implements tea.Model.
func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case lookAgain:
		if m.paused {
			return m, m.later()
		}
		return m, func() tea.Msg {
			sheets, err := m.load()
			return looked{sheets, err, time.Now()}
		}
	case looked:
		if m.err = msg.err; msg.err == nil {
			m.sheets, m.at = msg.sheets, msg.at
		}
		return m, m.later()
	case tea.KeyPressMsg:
		return m.key(msg.String())
	}
	return m, nil
}

func (m *topModel) key(name string) (tea.Model, tea.Cmd) {
	switch name {
	case "q", "ctrl+c", "esc":
		return m, tea.Quit
	case "p":
		m.paused = !m.paused
	case "tab", "right":
		m.shown, m.from = (m.shown+1)%len(m.sheets), 0
	case "shift+tab", "left":
		m.shown, m.from = (m.shown+len(m.sheets)-1)%len(m.sheets), 0
	case "down", "j":
		m.from = min(m.from+1, max(0, len(m.sheets[m.shown].Rows)-1))
	case "up", "k":
		m.from = max(0, m.from-1)
	default:
		if len(name) == 1 && name[0] >= '1' && int(name[0]-'1') < len(m.sheets) {
			m.shown, m.from = int(name[0]-'1'), 0
		}
	}
	return m, nil
}

// View implements tea.Model.
func (m *topModel) View() tea.View {
	v := tea.NewView(m.screen(time.Now()))
	v.AltScreen = true
	return v
}

const (
	bold  = "\x1b[1m"
	plain = "\x1b[0m"
)

// screen is what is seen: titles, the table from its first row on, a line of help.
func (m *topModel) screen(now time.Time) string {
	var b strings.Builder
	for i, s := range m.sheets {
		title := fmt.Sprintf("%d %s", i+1, s.Name)
		if i == m.shown {
			title = bold + "[" + title + "]" + plain
		}
		b.WriteString(title + "  ")
	}
	b.WriteString("\n\n")
	var text strings.Builder
	t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	s := m.sheets[m.shown]
	line(t, s.Head)
	for _, r := range s.Rows {
		line(t, r)
	}
	t.Flush()
	rows := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	b.WriteString(bold + m.fit(rows[0]) + plain + "\n")
	room := max(1, m.height-5)
	for _, r := range rows[1+min(m.from, len(rows)-1):][:min(room, len(rows)-1-min(m.from, len(rows)-1))] {
		b.WriteString(m.fit(r) + "\n")
	}
	foot := fmt.Sprintf("%d rows, %s old; 1-%d or tab: table, up and down: scroll, p: pause, q: end", len(s.Rows), span(now.Sub(m.at)), len(m.sheets))
	if m.paused {
		foot = "paused; " + foot
	}
	if m.err != nil {
		foot = "no answer: " + m.err.Error() + "; " + foot
	}
	b.WriteString("\n" + m.fit(foot))
	return b.String()
}

// fit cuts a line to the screen's width.
func (m *topModel) fit(s string) string {
	r := []rune(s)
	if m.width > 0 && len(r) > m.width {
		return string(r[:m.width-1]) + "…"
	}
	return s
}
