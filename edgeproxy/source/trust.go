package source

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// trustKeyName is a controller's public key in its data folder, beside the nodes' token.
const trustKeyName = "site.pub"

// OpenTrustKey returns the key that must have signed a controller's snapshots: that of
// file, or where it is empty of a site.pub beside the token file. With neither it is nil, and
// the log says that whoever can write to the bus can configure this node.
func OpenTrustKey(file, tokenFile string, log *slog.Logger) (ed25519.PublicKey, error) {
	if file == "" && tokenFile != "" {
		beside := filepath.Join(filepath.Dir(tokenFile), trustKeyName)
		if _, err := os.Stat(beside); err == nil {
			file = beside
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if file == "" {
		log.Warn("signatures of configuration are not verified: give --trust-key, or put the controller's "+trustKeyName+" beside the token file", "token_file", tokenFile)
		return nil, nil
	}
	key, err := ReadTrustKey(file)
	if err == nil {
		log.Info("configuration must be signed", "trust_key", file)
	}
	return key, err
}

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
