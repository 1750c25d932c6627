package pcap

import (
	"fmt"
	"io"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// Writer writes Ethernet frames as a pcapng file. It belongs to one goroutine.
type Writer struct{ w *pcapgo.NgWriter }

// NewWriter writes the file's beginning.
func NewWriter(w io.Writer) (*Writer, error) {
	ng, err := pcapgo.NewNgWriter(w, layers.LinkTypeEthernet)
	if err != nil {
		return nil, fmt.Errorf("begin capture: %w", err)
	}
	return &Writer{ng}, nil
}

// Write adds a frame.
func (w *Writer) Write(frame []byte, at time.Time) error {
	return w.w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(frame), Length: len(frame)}, frame)
}

// Flush writes out what is buffered.
func (w *Writer) Flush() error { return w.w.Flush() }
