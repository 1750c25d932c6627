package http1

// maxProtocol bounds the name of a protocol to switch to.
const maxProtocol = 32

// validProtocol takes protocol-name ["/" protocol-version] (RFC 9110 7.8).
func validProtocol(p []byte) bool {
	if len(p) == 0 || len(p) > maxProtocol {
		return false
	}
	slash := false
	for i, c := range p {
		switch {
		case c == '/' && !slash && i > 0 && i < len(p)-1:
			slash = true
		case class[c]&token == 0:
			return false
		}
	}
	return true
}

// appendSwitch writes the fields that ask for a switch of protocols or agree to it.
func appendSwitch(dst, protocol []byte) []byte {
	dst = append(dst, "Connection: Upgrade\r\nUpgrade: "...)
	return append(append(dst, protocol...), "\r\n"...)
}
