package tlsio

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/meridian-mesh/meridian/internal/spiffe"
)

// Reason is why a handshake brought no session.
type Reason uint8

// Reasons.
const (
	Protocol         Reason = iota // anything else that the other side did wrong
	Busy                           // too many were under way
	TimedOut                       // it took too long
	Gone                           // the other side went away
	NotTLS                         // it speaks something else
	Version                        // none of its versions is allowed
	Nothing                        // no cipher suite, curve or application protocol in common
	UnknownName                    // there is no certificate for the name that it asked for
	NoCertificate                  // it gave none, and has to
	Expired                        // its certificate is not valid at this time
	UnknownAuthority               // ... was issued by nobody who is trusted
	WrongName                      // ... is another's
	WrongCertificate               // ... is not valid for another reason
	WrongDomain                    // ... is of another trust domain
	WrongSite                      // ... is of another site than its issuer, or than was asked for
	Denied                         // ... is on the deny list
	NoIdentity                     // this proxy has none of its own yet
	EarlyData                      // it sent data before the handshake's end
	Refused                        // it sent an alert
	reasons
)

// String is the reason as a label.
func (r Reason) String() string { return reasonText[r] }

var reasonText = [reasons]string{
	Protocol: "protocol_error", Busy: "too_many", TimedOut: "timeout", Gone: "closed", NotTLS: "not_tls",
	Version: "unsupported_version", Nothing: "nothing_in_common", UnknownName: "unknown_server_name",
	NoCertificate: "certificate_missing", Expired: "certificate_expired", UnknownAuthority: "certificate_unknown_authority",
	WrongName: "certificate_wrong_name", WrongCertificate: "certificate_invalid", Refused: "refused_by_peer",
	WrongDomain: "certificate_wrong_trust_domain", WrongSite: "certificate_wrong_site", Denied: "certificate_denied", NoIdentity: "no_identity", EarlyData: "early_data",
}

// worded are what crypto/tls says where its errors have no type; a test meets each.
var worded = []struct {
	text   string
	reason Reason
}{
	{"offered only unsupported versions", Version},
	{"unsupported protocol version", Version},
	{"selected unsupported protocol", Version},
	{"unsupported SSLv2 handshake", NotTLS},
	{"first record does not look like a TLS handshake", NotTLS},
	{"no cipher suite supported", Nothing},
	{"no ECDHE curve", Nothing},
	{"unsupported application protocols", Nothing},
	{"unexpected early data", EarlyData},
	{"no certificates configured", UnknownName},
	{"didn't provide a certificate", NoCertificate},
}

// judged are the reasons for which an identity is not believed.
var judged = map[spiffe.Reason]Reason{
	spiffe.Invalid: WrongCertificate, spiffe.Expired: Expired, spiffe.Unknown: UnknownAuthority, spiffe.WrongDomain: WrongDomain,
	spiffe.WrongSite: WrongSite, spiffe.WrongName: WrongName, spiffe.Denied: Denied,
}

// ReasonOf tells the reason of a handshake's error.
func ReasonOf(err error) Reason {
	var header tls.RecordHeaderError
	var op *net.OpError
	var invalid x509.CertificateInvalidError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var verification *tls.CertificateVerificationError
	var identity *spiffe.Error
	var peer *wrongPeer
	switch {
	case errors.Is(err, ErrBusy):
		return Busy
	case errors.Is(err, errNoIdentity):
		return NoIdentity
	case errors.As(err, &peer):
		if peer.id.Site == peer.want {
			return WrongName // a workload
		}
		return WrongSite
	case errors.As(err, &identity):
		return judged[identity.Reason]
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Gone
	case errors.As(err, &header):
		return NotTLS
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return Expired
	case errors.As(err, &authority):
		return UnknownAuthority
	case errors.As(err, &name):
		return WrongName
	case errors.As(err, &verification), errors.As(err, &invalid):
		return WrongCertificate
	case errors.As(err, &op) && op.Op == "remote error":
		return Refused
	}
	for _, w := range worded {
		if strings.Contains(err.Error(), w.text) {
			return w.reason
		}
	}
	return Protocol
}
