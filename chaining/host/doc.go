// Package host runs network functions as processes, and the userspace forwarder
// over UDP sockets: the thin I/O around chaining/function and chaining/soft.
package host
