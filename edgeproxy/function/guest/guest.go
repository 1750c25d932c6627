//go:build wasip1

package guest

import "unsafe"

// OnRequest handles a request's head; false answers the request itself, with what
// [Answer] was told. nil lets all go on.
var OnRequest func(r Message) bool

// OnResponse handles the head of a response to a request that went on, which is still
// there to read. nil leaves it as it is.
var OnResponse func(request, response Message)

// Message is a request's or a response's head.
type Message uint32

const (
	request  Message = 0
	response Message = 1
)

// buffer takes what the host gives.
var buffer = make([]byte, 2048)

// Get returns the first value of a header, empty where it is not there.
func (m Message) Get(name string) string {
	v, _ := m.Lookup(name)
	return v
}

// Lookup returns the first value of a header, and whether it is there.
func (m Message) Lookup(name string) (string, bool) {
	for {
		countLen := getHeaderValues(uint32(m), name, pointer(buffer), uint32(len(buffer)))
		n := uint32(countLen)
		if int(n) > len(buffer) {
			buffer = make([]byte, n)
			continue
		}
		if countLen>>32 == 0 {
			return "", false
		}
		for i := range buffer[:n] {
			if buffer[i] == 0 {
				return string(buffer[:i]), true
			}
		}
		return "", false
	}
}

// Names returns the names of all headers, in lower case.
func (m Message) Names() (names []string) {
	text := filled(func(b unsafe.Pointer, limit uint32) uint32 { return uint32(getHeaderNames(uint32(m), b, limit)) })
	for from, i := 0, 0; i < len(text); i++ {
		if text[i] == 0 {
			names = append(names, text[from:i])
			from = i + 1
		}
	}
	return names
}

// Set replaces all lines of a header by one.
func (m Message) Set(name, value string) { setHeaderValue(uint32(m), name, value) }

// Add adds a line.
func (m Message) Add(name, value string) { addHeaderValue(uint32(m), name, value) }

// Remove takes all lines of a header out.
func (m Message) Remove(name string) { removeHeader(uint32(m), name) }

// Method, URI and Source are of the request: its method, its path with query, and the
// client's address.
func Method() string { return filled(getMethod) }

// URI is the request's path with query.
func URI() string { return filled(getURI) }

// Source is the client's address.
func Source() string { return filled(getSourceAddr) }

// Config is what the document says under config.
func Config() string { return filled(getConfig) }

// Status is the response's status code.
func Status() int { return int(getStatusCode()) }

// Answer says with what a request is answered that does not go on; headers of the answer
// are set on the Message that it returns.
func Answer(status int, body string) Message {
	setStatusCode(uint32(status))
	if body != "" {
		writeBody(uint32(response), body)
	}
	return response
}

// filled asks the host for text, with a larger buffer where it does not fit.
func filled(get func(b unsafe.Pointer, limit uint32) uint32) string {
	n := get(pointer(buffer), uint32(len(buffer)))
	if int(n) > len(buffer) {
		buffer = make([]byte, n)
		n = get(pointer(buffer), n)
	}
	return string(buffer[:n])
}

func pointer(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

//go:wasmexport handle_request
func handleRequest() uint64 {
	if OnRequest != nil && !OnRequest(request) {
		return 0
	}
	return 1
}

//go:wasmexport handle_response
func handleResponse(_, _ uint32) {
	if OnResponse != nil {
		OnResponse(request, response)
	}
}

//go:wasmimport http_handler get_header_values
func getHeaderValues(kind uint32, name string, buf unsafe.Pointer, limit uint32) uint64

//go:wasmimport http_handler get_header_names
func getHeaderNames(kind uint32, buf unsafe.Pointer, limit uint32) uint64

//go:wasmimport http_handler set_header_value
func setHeaderValue(kind uint32, name, value string)

//go:wasmimport http_handler add_header_value
func addHeaderValue(kind uint32, name, value string)

//go:wasmimport http_handler remove_header
func removeHeader(kind uint32, name string)

//go:wasmimport http_handler get_method
func getMethod(buf unsafe.Pointer, limit uint32) uint32

//go:wasmimport http_handler get_uri
func getURI(buf unsafe.Pointer, limit uint32) uint32

//go:wasmimport http_handler get_source_addr
func getSourceAddr(buf unsafe.Pointer, limit uint32) uint32

//go:wasmimport http_handler get_config
func getConfig(buf unsafe.Pointer, limit uint32) uint32

//go:wasmimport http_handler get_status_code
func getStatusCode() uint32

//go:wasmimport http_handler set_status_code
func setStatusCode(status uint32)

//go:wasmimport http_handler write_body
func writeBody(kind uint32, body string)
