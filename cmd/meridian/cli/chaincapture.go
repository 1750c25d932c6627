package cli

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/testbed/pcap"
)

func chainCaptureCommand() *cobra.Command {
	var ifname, file string
	var count int
	var span time.Duration
	var spi uint32
	cmd := &cobra.Command{
		Use:   "capture",
		Short: "Write packets with NSH to a pcapng file",
		Long: `Capture takes frames with NSH, in VXLAN-GPE or straight on Ethernet, from an
interface and writes them as pcapng, which Wireshark and tshark read. It needs root
(CAP_NET_RAW).`,
		Example: `  meridian chain capture --interface eth0 --write chain.pcapng --for 10s
  meridian chain capture --interface eth0 --write - --count 100 --path 4711 | tshark -r -`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ifname == "" || file == "" {
				return errUsage{errors.New("--interface and --write are needed")}
			}
			var w io.Writer = cmd.OutOrStdout()
			if file != "-" {
				f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
				if err != nil {
					return hinted{err, "a capture never overwrites: remove the file or name another"}
				}
				defer f.Close()
				w = f
			}
			ctx := cmd.Context()
			if span > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, span)
				defer cancel()
			}
			n, err := capture(ctx, ifname, w, spi, count)
			fmt.Fprintf(cmd.ErrOrStderr(), "%d packets\n", n)
			return err
		},
	}
	cmd.Flags().StringVarP(&ifname, "interface", "i", "", "`interface` to listen on")
	cmd.Flags().StringVarP(&file, "write", "w", "", "`file` to write, - for standard output")
	cmd.Flags().IntVar(&count, "count", 0, "end after this `number` of packets; 0 is no end")
	cmd.Flags().DurationVar(&span, "for", 0, "end after this time; 0 is no end")
	cmd.Flags().Uint32Var(&spi, "path", 0, "only packets of this service path; 0 is all")
	return cmd
}

// capture writes frames with NSH until ctx ends or count are there.
func capture(ctx context.Context, ifname string, w io.Writer, spi uint32, count int) (n int, err error) {
	ifc, err := net.InterfaceByName(ifname)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", ifname, err)
	}
	const all = unix.ETH_P_ALL
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(all)))
	if err != nil {
		return 0, hinted{fmt.Errorf("open a packet socket: %w", err), "run it as root"}
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(all), Ifindex: ifc.Index}); err != nil {
		return 0, fmt.Errorf("listen on %s: %w", ifname, err)
	}
	// The socket wakes up often enough to see the end of ctx.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		return 0, err
	}
	out, err := pcap.NewWriter(w)
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 1<<17)
	for ctx.Err() == nil && (count == 0 || n < count) {
		size, from, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return n, fmt.Errorf("receive on %s: %w", ifname, err)
		}
		// The loopback interface shows each packet twice, out and in.
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING && ifc.Flags&net.FlagLoopback != 0 {
			continue
		}
		if h, ok := headerOf(buf[:size]); !ok || spi != 0 && h.SPI() != spi {
			continue
		}
		if err := out.Write(buf[:size], time.Now()); err != nil {
			return n, err
		}
		n++
	}
	return n, out.Flush()
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16([]byte{byte(v >> 8), byte(v)}) }

// headerOf finds the NSH of a frame.
func headerOf(b []byte) (nsh.Header, bool) {
	if len(b) < 14 {
		return nil, false
	}
	rest := b[14:]
	switch binary.BigEndian.Uint16(b[12:]) {
	case nsh.EtherType:
		h, _, err := nsh.Parse(rest)
		return h, err == nil
	case 0x0800:
		if len(rest) < 28 || rest[9] != 17 {
			return nil, false
		}
		rest = rest[min(len(rest), int(rest[0]&15)*4):]
	case 0x86dd:
		if len(rest) < 48 || rest[6] != 17 {
			return nil, false
		}
		rest = rest[40:]
	default:
		return nil, false
	}
	if len(rest) < 8 || binary.BigEndian.Uint16(rest[2:]) != nsh.GPEPort {
		return nil, false
	}
	_, rest, err := nsh.ParseGPE(rest[8:])
	if err != nil {
		return nil, false
	}
	h, _, err := nsh.Parse(rest)
	return h, err == nil
}
