package main

import (
	"errors"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// bareSplice names the peer that is no proxy: two calls of splice(2) in a row, with no
// limit, no timeout, no metric and nothing else. What it costs is what the kernel
// takes to pass a connection on, and bounds what any proxy here can reach.
const bareSplice = "bare-splice"

// bareBytes is what one of its calls may move.
const bareBytes = 512 << 10

func passBare(client *net.TCPConn, address string) (err error) {
	defer client.Close()
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	backend := c.(*net.TCPConn)
	defer backend.Close()
	back := make(chan error, 1)
	go func() {
		_, err := io.Copy(client, backend) // the few bytes of an answer
		back <- errors.Join(err, client.CloseWrite())
	}()
	return errors.Join(spliceAll(backend, client), backend.CloseWrite(), <-back)
}

// spliceAll moves everything of one connection to another one, in calls that block.
func spliceAll(to, from *net.TCPConn) (err error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(pipe[0]), unix.Close(pipe[1])) }()
	if _, err := unix.FcntlInt(uintptr(pipe[1]), unix.F_SETPIPE_SZ, bareBytes); err != nil {
		return err
	}
	in, err := from.File() // of its own, and blocking
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := to.File()
	if err != nil {
		return err
	}
	defer out.Close()
	inFD, outFD := int(in.Fd()), int(out.Fd())
	if err := errors.Join(unix.SetNonblock(inFD, false), unix.SetNonblock(outFD, false)); err != nil {
		return err
	}
	for {
		n, err := unix.Splice(inFD, nil, pipe[1], nil, bareBytes, unix.SPLICE_F_MOVE)
		if n == 0 || err != nil {
			return err
		}
		for n > 0 {
			k, err := unix.Splice(pipe[0], nil, outFD, nil, int(n), unix.SPLICE_F_MOVE)
			if err != nil {
				return err
			}
			n -= k
		}
	}
}
