package source

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
)

// ReadTrustKey returns the Ed25519 public key in file: PEM (PUBLIC KEY) or the
// 32 bytes in base64.
func ReadTrustKey(file string) (ed25519.PublicKey, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(data); block != nil {
		if block.Type != "PUBLIC KEY" {
			return nil, fmt.Errorf("%s: holds a PEM %s, want PUBLIC KEY (the controller's public half)", file, block.Type)
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		ed, ok := key.(ed25519.PublicKey)
		if !ok {
			return nil, fmt.Errorf("%s: holds a %T, want an Ed25519 key", file, key)
		}
		return ed, nil
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(data)))
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%s: neither a PEM PUBLIC KEY nor %d bytes in base64", file, ed25519.PublicKeySize)
	}
	return ed25519.PublicKey(raw), nil
}
