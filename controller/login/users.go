// Package login says who may use a controller's page from elsewhere: users with a role,
// kept in a file by their password's hash, the sessions that they open, and how long
// somebody waits who gives a wrong password.
//
// The package is pure but for the salts of new hashes. Nothing in it may be used by
// several goroutines at once.
package login

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// Role is what a user may do; each may what the one before it may.
type Role string

// Roles.
const (
	View    Role = "view"    // look at everything
	Operate Role = "operate" // drain, cordon, undrain, pin
	Admin   Role = "admin"   // change anything
)

var rank = map[Role]int{View: 1, Operate: 2, Admin: 3}

// May reports whether a role suffices where another is needed. Roles that there are
// not suffice nowhere.
func (r Role) May(needed Role) bool {
	return rank[r] > 0 && rank[needed] > 0 && rank[r] >= rank[needed]
}

// ParseRole reads a role's name.
func ParseRole(name string) (Role, error) {
	if rank[Role(name)] == 0 {
		return "", fmt.Errorf("role %q: want %s, %s or %s", name, View, Operate, Admin)
	}
	return Role(name), nil
}

// User is one line of the file.
type User struct {
	Name string
	Role Role
	// Hash is of the password, as bcrypt writes it.
	Hash string
}

// String is the user's line in the file.
func (u User) String() string { return u.Name + " " + string(u.Role) + " " + u.Hash }

const (
	// Cost is that of new hashes: a quarter of a second of a small machine, which only
	// logins pay.
	Cost = 12
	// LeastPassword bounds a password from below, in bytes.
	LeastPassword = 10
	// MostPassword bounds it from above: bcrypt reads no more.
	MostPassword = 72
)

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// NewUser makes a user; cost is [Cost] but in tests.
func NewUser(name string, role Role, password string, cost int) (User, error) {
	if !nameForm.MatchString(name) {
		return User{}, fmt.Errorf("user name %q: want 1 to 64 letters, digits and . _ @ -, the first a letter or digit", name)
	}
	if _, err := ParseRole(string(role)); err != nil {
		return User{}, err
	}
	if n := len(password); n < LeastPassword || n > MostPassword {
		return User{}, fmt.Errorf("the password has %d bytes: want %d to %d", n, LeastPassword, MostPassword)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	return User{name, role, string(hash)}, err
}

// Is reports whether a password is the user's. It takes as long as the hash costs.
func (u User) Is(password string) bool {
	return bcrypt.CompareHashAndPassword([]byte(u.Hash), []byte(password)) == nil
}

// Users are those of a file, by name.
type Users map[string]User

// ParseUsers reads lines of NAME ROLE HASH; empty ones and those after # are passed
// over. All that is wrong is said, by line.
func ParseUsers(data []byte) (Users, error) {
	out := Users{}
	var errs []error
	n := 0
	for line := range bytes.Lines(data) {
		n++
		fields := strings.Fields(string(line))
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		bad := func(format string, v ...any) {
			errs = append(errs, fmt.Errorf("line %d: %w", n, fmt.Errorf(format, v...)))
		}
		if len(fields) != 3 {
			bad("%d words: want NAME ROLE HASH, as meridian dashboard user writes it", len(fields))
			continue
		}
		u := User{fields[0], Role(fields[1]), fields[2]}
		_, unknown := ParseRole(fields[1])
		cost, err := bcrypt.Cost([]byte(u.Hash))
		_, twice := out[u.Name]
		switch {
		case !nameForm.MatchString(u.Name):
			bad("%q is no user name", u.Name)
		case twice:
			bad("user %s is there twice", u.Name)
		case unknown != nil:
			bad("user %s: %w", u.Name, unknown)
		case err != nil:
			bad("user %s: the hash cannot be read: write it with meridian dashboard user", u.Name)
		case cost > 15:
			bad("user %s: the hash costs 2^%d rounds, at most 2^15 are taken", u.Name, cost)
		default:
			out[u.Name] = u
		}
	}
	return out, errors.Join(errs...)
}
