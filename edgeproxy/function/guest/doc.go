// Package guest is for functions of requests that are written in Go and run in the
// proxy as WebAssembly modules, with the handler ABI of http-wasm. A module sets its
// handlers when it begins:
//
//	func init() {
//		guest.OnRequest = func(r guest.Message) bool {
//			r.Set("x-tier", "gold")
//			return true // go on
//		}
//	}
//
//	func main() {}
//
// and is built with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o function.wasm
//
// A module has one goroutine and sees one message at a time; values that it gets are
// copies.
package guest
