package login

import (
	"crypto/sha256"
	"time"
)

const (
	// Idle is how long a session lives without a request.
	Idle = time.Hour
	// Longest is how long it lives in any case.
	Longest = 12 * time.Hour
	// MaxSessions bounds those that are open; the one that was used least lately goes
	// for another.
	MaxSessions = 256
)

// session is one that is open. Tokens are kept by their hash: what reads the memory
// of a crash cannot use them.
type session struct {
	user         User
	opened, used time.Time
}

// Sessions are those that are open. The zero value is ready.
type Sessions struct {
	open map[[sha256.Size]byte]*session
}

// Open begins a session under a token, which must not be guessable.
func (s *Sessions) Open(token string, u User, now time.Time) {
	if s.open == nil {
		s.open = map[[sha256.Size]byte]*session{}
	}
	for key, x := range s.open {
		if x.over(now) {
			delete(s.open, key)
		}
	}
	for len(s.open) >= MaxSessions {
		var oldest [sha256.Size]byte
		var found *session
		for key, x := range s.open {
			if found == nil || x.used.Before(found.used) {
				oldest, found = key, x
			}
		}
		delete(s.open, oldest)
	}
	s.open[sha256.Sum256([]byte(token))] = &session{u, now, now}
}

func (x *session) over(now time.Time) bool {
	return now.Sub(x.used) > Idle || now.Sub(x.opened) > Longest
}

// Who is the user of a session, as the file has them now: one that was removed, or
// whose password was changed, has no session any more; a changed role holds at once.
func (s *Sessions) Who(token string, users Users, now time.Time) (User, bool) {
	key := sha256.Sum256([]byte(token))
	x, ok := s.open[key]
	if !ok {
		return User{}, false
	}
	u, known := users[x.user.Name]
	if !known || u.Hash != x.user.Hash || x.over(now) {
		delete(s.open, key)
		return User{}, false
	}
	x.used = now
	return u, true
}

// Close ends a session.
func (s *Sessions) Close(token string) { delete(s.open, sha256.Sum256([]byte(token))) }

const (
	// free is how many wrong passwords in a row cost no waiting; each further one
	// doubles it, from firstWait to lastWait.
	free      = 5
	firstWait = time.Second
	lastWait  = 5 * time.Minute
	// maxKeys bounds who is remembered: the one that failed least lately is forgotten.
	maxKeys = 4096
)

type failed struct {
	times int
	last  time.Time
}

// Throttle makes those wait who give wrong passwords, by any key: an address, a user's
// name. The zero value is ready.
type Throttle struct{ keys map[string]failed }

// Wait is how long a key has to wait yet.
func (t *Throttle) Wait(key string, now time.Time) time.Duration {
	f, ok := t.keys[key]
	if !ok || f.times < free {
		return 0
	}
	wait := firstWait << min(f.times-free, 20)
	return max(0, min(wait, lastWait)-now.Sub(f.last))
}

// Failed counts a wrong password. What is longer ago than the longest wait is forgiven.
func (t *Throttle) Failed(key string, now time.Time) {
	if t.keys == nil {
		t.keys = map[string]failed{}
	}
	f := t.keys[key]
	if now.Sub(f.last) > 2*lastWait {
		f.times = 0
	}
	if f.times == 0 && len(t.keys) >= maxKeys {
		oldest, found := "", false
		for k, x := range t.keys {
			if !found || x.last.Before(t.keys[oldest].last) {
				oldest, found = k, true
			}
		}
		delete(t.keys, oldest)
	}
	t.keys[key] = failed{f.times + 1, now}
}

// Passed forgets a key that gave the right one.
func (t *Throttle) Passed(key string) { delete(t.keys, key) }
