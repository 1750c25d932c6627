package login

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func user(t *testing.T, name string, role Role, password string) User {
	t.Helper()
	u, err := NewUser(name, role, password, bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestRoles(t *testing.T) {
	for _, c := range []struct {
		has, needed Role
		want        bool
	}{{View, View, true}, {View, Operate, false}, {Operate, View, true}, {Operate, Admin, false}, {Admin, Operate, true}, {"root", View, false}, {Admin, "", false}, {"", "", false}} {
		if got := c.has.May(c.needed); got != c.want {
			t.Errorf("%q where %q is needed: %v", c.has, c.needed, got)
		}
	}
}

func TestUsers(t *testing.T) {
	ann := user(t, "ann", Admin, "correct horse battery")
	if !ann.Is("correct horse battery") || ann.Is("correct horse") || ann.Is("") {
		t.Error("passwords are told apart wrongly")
	}
	users, err := ParseUsers([]byte("# who may\n\n" + ann.String() + "\n  bob\tview  " + ann.Hash + "  \n"))
	if err != nil || len(users) != 2 || users["ann"] != ann || users["bob"].Role != View {
		t.Fatalf("%v, %v", users, err)
	}
	for text, want := range map[string]string{
		"ann admin":                        "line 1: 2 words",
		"\nann root " + ann.Hash:           "line 2: user ann: role \"root\"",
		"ann view plain":                   "line 1: user ann: the hash",
		"-x view " + ann.Hash:              "no user name",
		ann.String() + "\n" + ann.String(): "line 2: user ann is there twice",
		"ann view $2a$31$" + ann.Hash[7:]:  "2^31",
	} {
		if _, err := ParseUsers([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	for _, c := range []struct{ name, role, password, want string }{
		{"a b", "view", "0123456789", "user name"}, {"", "view", "0123456789", "user name"},
		{"ann", "king", "0123456789", "role"}, {"ann", "view", "short", "5 bytes"}, {"ann", "view", strings.Repeat("x", 73), "73 bytes"},
	} {
		if _, err := NewUser(c.name, Role(c.role), c.password, bcrypt.MinCost); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestSessions(t *testing.T) {
	ann, bob := user(t, "ann", Admin, "0123456789"), user(t, "bob", View, "0123456789")
	users := Users{"ann": ann, "bob": bob}
	var s Sessions
	who := func(token string, at time.Time) string {
		u, _ := s.Who(token, users, at)
		return u.Name + string(u.Role)
	}
	if who("t", now) != "" {
		t.Error("a session out of nothing")
	}
	s.Open("t", ann, now)
	s.Open("u", bob, now)
	if who("t", now) != "annadmin" || who("u", now) != "bobview" || who("x", now) != "" {
		t.Error("sessions are mixed up")
	}
	s.Close("u")
	if who("u", now) != "" {
		t.Error("closed and open")
	}
	// It lives while it is used, but not for ever.
	at := now
	for at.Sub(now) < Longest-Idle {
		at = at.Add(Idle - time.Second)
		if who("t", at) == "" {
			t.Fatalf("over after %v, used all the time", at.Sub(now))
		}
	}
	if who("t", now.Add(Longest+time.Second)) != "" {
		t.Error("it never ends")
	}
	s.Open("t", ann, now)
	if who("t", now.Add(Idle+time.Second)) != "" {
		t.Error("unused, and still open")
	}
	// What the file says now holds.
	s.Open("t", ann, now)
	users["ann"] = User{"ann", View, ann.Hash}
	if who("t", now) != "annview" {
		t.Error("the changed role does not hold")
	}
	users["ann"] = user(t, "ann", View, "another one")
	if who("t", now) != "" {
		t.Error("the password was changed, and the session stays")
	}
	s.Open("t", users["ann"], now)
	delete(users, "ann")
	if who("t", now) != "" {
		t.Error("the user was removed, and the session stays")
	}
	for i := range 2 * MaxSessions {
		s.Open(fmt.Sprint(i), bob, now.Add(time.Duration(i)*time.Second))
	}
	if len(s.open) > MaxSessions || who(fmt.Sprint(2*MaxSessions-1), now.Add(2*MaxSessions*time.Second)) == "" || who("0", now) != "" {
		t.Errorf("%d sessions are open", len(s.open))
	}
}

func TestThrottle(t *testing.T) {
	var th Throttle
	at := now
	for i := range free {
		if w := th.Wait("a", at); w != 0 {
			t.Fatalf("failure %d waits %v", i, w)
		}
		th.Failed("a", at)
	}
	for want := firstWait; want < lastWait; want *= 2 {
		if w := th.Wait("a", at); w != want {
			t.Fatalf("waits %v, want %v", w, want)
		}
		at = at.Add(want)
		if w := th.Wait("a", at); w != 0 {
			t.Fatalf("and %v more", w)
		}
		th.Failed("a", at)
	}
	for range 60 {
		th.Failed("a", at)
	}
	if w := th.Wait("a", at); w != lastWait {
		t.Errorf("at last it waits %v", w)
	}
	if th.Wait("b", at) != 0 {
		t.Error("others wait too")
	}
	if th.Failed("a", at.Add(3*lastWait)); th.Wait("a", at.Add(3*lastWait)) != 0 {
		t.Error("nothing is ever forgiven")
	}
	for range free + 1 {
		th.Failed("c", at)
	}
	if th.Passed("c"); th.Wait("c", at) != 0 {
		t.Error("passed, and it waits")
	}
	for i := range 2 * maxKeys {
		th.Failed(fmt.Sprint(i), at.Add(time.Duration(i)))
	}
	if len(th.keys) > maxKeys {
		t.Errorf("%d keys are kept", len(th.keys))
	}
}
