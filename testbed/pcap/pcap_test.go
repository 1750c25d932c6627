package pcap

import (
	"bytes"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/path"
	"github.com/meridian-mesh/meridian/chaining/soft"
	"github.com/meridian-mesh/meridian/chaining/soft/packetgrammar"
)

// emitted are frames with NSH that the forwarder makes of grammar's packets.
func emitted(t testing.TB, want int) [][]byte {
	t.Helper()
	f := soft.New(packetgrammar.Table(), soft.Limits{}, nil)
	g := packetgrammar.New(99)
	out := make([]byte, packetgrammar.MaxFrame+soft.Headroom)
	var frames [][]byte
	for range 200_000 {
		port, frame := g.Next()
		r := f.Forward(port, frame, out, time.Unix(0, 0))
		switch r.Verdict {
		case path.VerdictNode, path.VerdictGPE, path.VerdictEther:
			frames = append(frames, bytes.Clone(r.Frame))
		}
		if len(frames) == want {
			return frames
		}
	}
	t.Fatalf("only %d frames with NSH", len(frames))
	return nil
}

// nshOf is the header of a frame, by gopacket.
func nshOf(t testing.TB, frame []byte) *NSH {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	n, ok := p.Layer(LayerTypeNSH).(*NSH)
	if !ok {
		t.Fatalf("%x: no NSH in %v: %v", frame, p.Layers(), p.ErrorLayer())
	}
	return n
}

// TestTshark: an independent tool reads each field of what the forwarder emits as
// our layers do, and finds no fault in it.
func TestTshark(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed: its reading is not compared")
	}
	frames := emitted(t, 1500)
	file := filepath.Join(t.TempDir(), "frames.pcapng")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(f)
	if err != nil {
		t.Fatal(err)
	}
	for i, frame := range frames {
		if err := w.Write(frame, time.Unix(1_700_000_000, int64(i)*1000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	fields := []string{"nsh.version", "nsh.Obit", "nsh.ttl", "nsh.length", "nsh.mdtype", "nsh.nextproto", "nsh.spi", "nsh.si", "udp.dstport", "vxlan.vni"}
	args := []string{"-r", file, "-n", "-T", "fields", "-E", "separator=,", "-E", "occurrence=f"}
	for _, field := range fields {
		args = append(args, "-e", field)
	}
	out, err := exec.Command(tshark, args...).Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	rows, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
	if err != nil || len(rows) != len(frames) {
		t.Fatalf("tshark printed %d rows for %d frames: %v", len(rows), len(frames), err)
	}
	number := func(s string) uint64 {
		switch s {
		case "True":
			return 1
		case "False":
			return 0
		}
		v, err := strconv.ParseUint(s, 0, 64)
		if err != nil {
			return 1 << 63
		}
		return v
	}
	gpe := 0
	for i, row := range rows {
		n := nshOf(t, frames[i])
		oam := uint64(0)
		if n.OAM {
			oam = 1
		}
		want := []uint64{0, oam, uint64(n.TTL), uint64(n.Length), uint64(n.MDType), uint64(n.NextProtocol), uint64(n.SPI), uint64(n.SI)}
		for k, v := range want {
			// tshark 4.0 prints the length in bytes or words by version.
			got := number(row[k])
			if fields[k] == "nsh.mdtype" {
				got &= 15 // tshark shows the unassigned bits with it
			}
			if got != v && !(fields[k] == "nsh.length" && got == 4*v) {
				t.Fatalf("frame %d: tshark has %s = %q, we %d\n%x", i, fields[k], row[k], v, frames[i])
			}
		}
		if row[9] != "" {
			gpe++
			if number(row[9]) != 7 {
				t.Fatalf("frame %d: VNI %s", i, row[9])
			}
		}
	}
	if gpe < 500 || gpe == len(frames) {
		t.Errorf("%d of %d frames came in VXLAN-GPE: both shells should be there", gpe, len(frames))
	}
	bad, err := exec.Command(tshark, "-r", file, "-n", "-Y", "nsh.length.invalid").Output()
	if err != nil || len(bytes.TrimSpace(bad)) > 0 {
		t.Errorf("tshark finds faults: %v\n%.2000s", err, bad)
	}
	t.Logf("tshark reads %d frames as we do, %d of them in VXLAN-GPE", len(rows), gpe)
}

// TestScapy: packets that scapy makes are read right.
func TestScapy(t *testing.T) {
	python := ""
	for _, p := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(p, "-c", "import scapy.contrib.nsh").Run() == nil {
			python = p
			break
		}
	}
	if python == "" {
		t.Skip("scapy (python3-scapy) is not installed: its packets are not read")
	}
	const script = `
import random
from scapy.all import IP, IPv6, UDP, TCP, Raw, raw
from scapy.contrib.nsh import NSH
random.seed(7)
for i in range(300):
    spi, si, ttl = random.randrange(1 << 24), random.randrange(256), random.randrange(64)
    six = i % 3 == 0
    inner = (IPv6() if six else IP()) / UDP(sport=1000 + i, dport=53) / Raw(b"x" * (i % 50))
    p = NSH(spi=spi, si=si, ttl=ttl, mdtype=1, nextproto=2 if six else 1) / inner
    print(spi, si, ttl, 2 if six else 1, raw(p).hex(), raw(inner).hex())
`
	out, err := exec.Command(python, "-c", script).Output()
	if err != nil {
		t.Fatalf("scapy: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 300 {
		t.Fatalf("scapy made %d packets", len(lines))
	}
	for _, line := range lines {
		w := strings.Fields(line)
		b, err := hex.DecodeString(w[4])
		if err != nil {
			t.Fatal(err)
		}
		h, payload, err := nsh.Parse(b)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if got := fmt.Sprint(h.SPI(), " ", h.SI(), " ", h.TTL(), " ", uint8(h.Next())); got != strings.Join(w[:4], " ") || hex.EncodeToString(payload) != w[5] {
			t.Fatalf("%s: read as %s", line, got)
		}
	}
}

// FuzzReadings: two readings of RFC 8300 agree, chaining/nsh and the layer.
func FuzzReadings(f *testing.F) {
	for _, frame := range emitted(f, 20) {
		f.Add(nshOf(f, frame).Contents)
	}
	f.Add([]byte{0x0f, 0xc1, 2, 1, 0, 0, 1, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, payload, err := nsh.Parse(b)
		var n NSH
		other := n.DecodeFromBytes(b, gopacket.NilDecodeFeedback)
		if (err == nil) != (other == nil) {
			t.Fatalf("%x: nsh says %v, the layer %v", b, err, other)
		}
		if err != nil {
			return
		}
		if h.SPI() != n.SPI || h.SI() != n.SI || h.TTL() != n.TTL || h.OAM() != n.OAM || uint8(h.Next()) != n.NextProtocol || h.MDType() != n.MDType || !bytes.Equal(payload, n.Payload) {
			t.Fatalf("%x: %+v", b, n)
		}
		headers, other := n.Headers()
		var err2 error
		count := 0
		for rest, ok := h.Context(), h.MDType() == nsh.MD2; ok; {
			var c nsh.ContextHeader
			if c, rest, ok, err2 = nsh.NextContext(rest); ok {
				if count >= len(headers) || c.Class != headers[count].Class || c.Type != headers[count].Type || !bytes.Equal(c.Value, headers[count].Value) {
					t.Fatalf("%x: context header %d is %+v and %+v", b, count, c, headers)
				}
				count++
			}
		}
		if count != len(headers) || (err2 == nil) != (other == nil) {
			t.Fatalf("%x: %d and %d context headers, %v and %v", b, count, len(headers), err2, other)
		}
	})
}

// TestSerialize: what the layers write, nsh reads.
func TestSerialize(t *testing.T) {
	b := gopacket.NewSerializeBuffer()
	n := &NSH{OAM: true, TTL: 9, MDType: 2, NextProtocol: 1, SPI: 0xabcdef, SI: 3, Context: []byte{0, 0, 5, 2, 1, 2, 0, 0}}
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, &VXLANGPE{ValidVNI: true, HasNext: true, NextProtocol: gpeNSH, VNI: 77}, n, gopacket.Payload("E")); err != nil {
		t.Fatal(err)
	}
	vni, rest, err := nsh.ParseGPE(b.Bytes())
	if err != nil || vni != 77 {
		t.Fatalf("VNI %d, %v", vni, err)
	}
	h, payload, err := nsh.Parse(rest)
	if err != nil || !h.OAM() || h.TTL() != 9 || h.SPI() != 0xabcdef || h.SI() != 3 || string(payload) != "E" {
		t.Fatalf("%x: %v", rest, err)
	}
	if v, ok, err := h.Find(0, 5); !bytes.Equal(v, []byte{1, 2}) || !ok || err != nil {
		t.Errorf("context header: %x, %v, %v", v, ok, err)
	}
}
