package mesh

import (
	"encoding/pem"
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// KindTrustBundle is the kind of [TrustBundle].
const KindTrustBundle = "TrustBundle"

// TrustBundleName is the name of the one TrustBundle of a mesh.
const TrustBundleName = "mesh"

// TrustBundle says whose identities a mesh's proxies believe. The hub writes it and
// keeps its trust domain and roots; the deny list is the operator's.
type TrustBundle struct {
	TypeMeta
	Metadata ObjectMeta      `json:"metadata"`
	Spec     TrustBundleSpec `json:"spec"`
}

// TrustBundleSpec is the desired state of a TrustBundle.
type TrustBundleSpec struct {
	TrustDomain string `json:"trustDomain"`
	// Roots are CA certificates in PEM, one each, the newest first.
	Roots []string `json:"roots"`
	// Denied are certificates that are out of use before they end.
	Denied []DeniedIdentity `json:"denied,omitempty"`
}

// DeniedIdentity names a certificate by its SPIFFE ID, which may be a whole site's, by
// its serial number, or by both.
type DeniedIdentity struct {
	ID     string `json:"id,omitempty"`
	Serial string `json:"serial,omitempty"`
	// Reason is for people.
	Reason string `json:"reason,omitempty"`
}

// What a site's east-west listeners take ([SiteSpec.MTLS]). Where it is empty it is
// MTLSStrict.
const (
	MTLSStrict     = "strict"     // only proxies of the mesh, by their identities
	MTLSPermissive = "permissive" // these, and who comes without TLS
	MTLSDisabled   = "disabled"   // without TLS; nor do others use it on their way there
)

// Trust is the mesh's TrustBundle, nil where there is none: then nothing between
// proxies is encrypted.
func (o *Objects) Trust() *TrustBundle {
	for _, t := range o.TrustBundles {
		if t.Metadata.Name == TrustBundleName && t.Metadata.Namespace == DefaultNamespace {
			return t
		}
	}
	return nil
}

// Compiled when they are first used: their counted repetitions take most of a megabyte,
// which a proxy that meets none of them does not need.
var (
	reSPIFFE = lazyRegexp(spiffeID)
	reSerial = lazyRegexp(serialNumber)
)

func lazyRegexp(whole string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(?:` + whole + `)$`) })
}

const (
	trustDomain  = `[a-z0-9._-]{1,255}`
	idSegment    = `[A-Za-z0-9._-]{1,253}`
	spiffeID     = `spiffe://` + trustDomain + `/site/` + idSegment + `(/ns/` + idSegment + `/sa/` + idSegment + `)?`
	serialNumber = `[1-9a-f][0-9a-f]{0,39}`
)

func checkTrustDomain(s string) (message, hint string) {
	if s == "" || len(s) > 255 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" { // as trustDomain
		return fmt.Sprintf("%q is not a trust domain", s), "lower-case letters, digits, -, . and _, such as mesh.example.com"
	}
	return "", ""
}

func checkSPIFFE(s string) (message, hint string) {
	dots := strings.Contains(s+"/", "/./") || strings.Contains(s+"/", "/../")
	if len(s) > 2048 || dots || !reSPIFFE().MatchString(s) {
		return fmt.Sprintf("%q is not an identity of the mesh", s), "spiffe://DOMAIN/site/SITE/ns/NAMESPACE/sa/ACCOUNT, or spiffe://DOMAIN/site/SITE for a whole site (meridian cert show lists them)"
	}
	return "", ""
}

func checkSerial(s string) (message, hint string) {
	if !reSerial().MatchString(s) {
		return fmt.Sprintf("%q is not a serial number", s), "lower-case hexadecimal digits without colons and leading zeros (meridian cert show lists them)"
	}
	return "", ""
}

func checkRoot(s string) (message, hint string) {
	b, rest := pem.Decode([]byte(s))
	if b == nil || b.Type != "CERTIFICATE" || strings.TrimSpace(string(rest)) != "" {
		return "is not one certificate in PEM", "the hub keeps the roots: leave them as they are"
	}
	return "", ""
}

func deniedRelations(d *DeniedIdentity, fault faultFunc) {
	if d.ID == "" && d.Serial == "" {
		fault("id", "is missing", "name whom to deny: id, serial or both")
	}
}

func trustBundleRelations(t *TrustBundle, fault faultFunc) {
	if t.Metadata.Namespace == "" {
		t.Metadata.Namespace = DefaultNamespace
	}
	if t.Metadata.Name != TrustBundleName || t.Metadata.Namespace != DefaultNamespace {
		fault("metadata.name", fmt.Sprintf("is %q, and a mesh has one TrustBundle", t.Metadata.Name), "name it "+TrustBundleName+", in namespace "+DefaultNamespace)
	}
}
