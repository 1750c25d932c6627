package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// grpcMessage is how many bytes a message of mode grpc has, with the five of its prefix:
// a call sends one, and its answer is one.
const grpcMessage = 128

// grpcHeaders are what makes a request one of gRPC (the protocol over HTTP/2, "Requests").
var grpcHeaders = [][2]string{{"content-type", "application/grpc"}, {"te", "trailers"}}

// calling has a proxy ask its backend by HTTP/2 without TLS, as gRPC servers want it.
func calling(p proxy) proxy {
	program, _, _ := strings.Cut(p.name, "-")
	p.calls = true
	workers := p.workers
	p.workers = func(conf string, n int) (string, error) {
		from, to := "protocol: http}", "protocol: http2}"
		switch program {
		case "haproxy":
			from, to = "server one "+confBackend, "server one "+confBackend+" proto h2"
		case "nginx":
			return "", errors.New("mode grpc: nginx sends gRPC on by a directive of its own, which no configuration here has; leave it out with --peers")
		}
		if !strings.Contains(conf, from) {
			return "", fmt.Errorf("no line with %q to have the backend asked by HTTP/2 in", from)
		}
		conf = strings.Replace(conf, from, to, 1)
		if workers == nil {
			return conf, nil
		}
		return workers(conf, n)
	}
	return p
}

// serveGRPC runs nghttpd (of nghttp2) as a server that answers each call with the same
// message and trailers, until its standard input ends.
func serveGRPC(in io.Reader, out io.Writer) (err error) {
	bin, err := find("nghttpd")
	if err != nil {
		return fmt.Errorf("%w: install it (apt-get install nghttp2-server) or leave mode grpc out", err)
	}
	dir, err := os.MkdirTemp("", "peers-grpc-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, filepath.FromSlash(requestPath))
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, message(), 0o600)); err != nil {
		return err
	}
	addr, err := freeAddress()
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	cmd := exec.Command(bin, "--no-tls", "--address=127.0.0.1", "--htdocs="+dir, "--trailer=grpc-status: 0", port)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return err
	}
	var how error
	ended := make(chan struct{})
	go func() { how = cmd.Wait(); close(ended) }()
	over := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, in); close(over) }() // its end is the message
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			return fmt.Errorf("nghttpd does not serve: %w\n%s", err, said.Bytes())
		}
	}
	fmt.Fprintln(out, addr)
	select {
	case <-ended:
		return fmt.Errorf("nghttpd ended: %w\n%s", how, said.Bytes())
	case <-over:
		_ = cmd.Process.Kill()
		<-ended
		return nil
	}
}

// message is a message as gRPC frames it: not compressed, its length, its bytes.
func message() []byte {
	const length = grpcMessage - 5
	return append(binary.BigEndian.AppendUint32([]byte{0}, length), bytes.Repeat([]byte("m"), length)...)
}

// measureGRPC is measureHTTP2 with unary calls, by HTTP/2 to the backend too.
func measureGRPC(ctx context.Context, o options, at placement, r *running) (sample, error) {
	file := filepath.Join(r.dir, "message")
	if err := os.WriteFile(file, message(), 0o600); err != nil {
		return sample{}, err
	}
	args := []string{"--data=" + file}
	for _, h := range grpcHeaders {
		args = append(args, "--header="+h[0]+": "+h[1])
	}
	return measureH2load(ctx, o, at, r, args...)
}

// answersCall makes one call and says what is wrong with the answer.
func answersCall(ctx context.Context, addr string) error {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{Protocols: protocols, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+requestPath, bytes.NewReader(message()))
	if err != nil {
		return err
	}
	for _, h := range grpcHeaders {
		req.Header.Set(h[0], h[1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if status := resp.Trailer.Get("grpc-status"); resp.StatusCode != http.StatusOK || !bytes.Equal(body, message()) || status != "0" {
		return fmt.Errorf("answered %s with %d bytes and grpc-status %q in the trailers", resp.Status, len(body), status)
	}
	return nil
}
