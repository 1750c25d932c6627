package join

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// tokenPrefix tells a token from other words, and its version.
const tokenPrefix = "meridian1."

// A Token lets one site join a mesh, once. It is a secret.
type Token struct {
	// Site is the name that the new site will have.
	Site string `json:"site"`
	// Join are the addresses to ask (https://host:port), Leaf those of the link
	// that follows (tls://host:port); the first that answers is taken.
	Join []string `json:"join"`
	Leaf []string `json:"leaf"`
	// CA is the SHA-256 of the hub's CA certificate (DER), in hexadecimal.
	CA string `json:"ca"`
	// Key is the one-time secret.
	Key string `json:"key"`
	// Expires is when the hub stops taking it, by the hub's clock.
	Expires time.Time `json:"expires"`
}

// String writes the token as one word.
func (t Token) String() string {
	data, err := json.Marshal(t)
	if err != nil {
		panic("join: a token cannot be written: " + err.Error()) // a time beyond the year 9999
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(data)
}

// ParseToken reads a token and refuses one that was cut or changed by accident.
func ParseToken(s string) (Token, error) {
	body, ok := strings.CutPrefix(strings.TrimSpace(s), tokenPrefix)
	if !ok {
		return Token{}, fmt.Errorf("this is no token: want one word that begins with %q, as 'meridian token create' prints it", tokenPrefix)
	}
	data, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return Token{}, errors.New("the token is damaged: copy all of it, in one line")
	}
	var t Token
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&t); err != nil || d.More() {
		return Token{}, errors.New("the token is damaged: copy all of it, in one line")
	}
	sum, err := hex.DecodeString(t.CA)
	switch {
	case err != nil || len(sum) != 32:
		return Token{}, errors.New("the token is damaged: it has no hash of the hub's CA")
	case t.Site == "" || t.Key == "":
		return Token{}, errors.New("the token is damaged: it has no site or no key")
	case len(t.Join) == 0 || len(t.Leaf) == 0:
		return Token{}, errors.New("the token is damaged: it has no address of the hub")
	}
	for _, list := range []struct {
		urls   []string
		scheme string
	}{{t.Join, "https"}, {t.Leaf, "tls"}} {
		for _, raw := range list.urls {
			if u, err := url.Parse(raw); err != nil || u.Scheme != list.scheme || u.Hostname() == "" || u.Port() == "" {
				return Token{}, fmt.Errorf("the token is damaged: address %q is not %s://host:port", raw, list.scheme)
			}
		}
	}
	return t, nil
}
