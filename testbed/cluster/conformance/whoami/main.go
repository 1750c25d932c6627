// Command whoami stands in for the image of CoreDNS that the suite's manifests ask for, as
// far as their Corefile goes: like CoreDNS's whoami it answers each question of the zones
// that have it with the asker's own address and port, and refuses the others, which there
// would be forwarded. CoreDNS itself would bring other versions of what the suite is built
// with into this module. It takes CoreDNS's -conf.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"

	"github.com/miekg/dns"
)

func main() {
	conf := flag.String("conf", "Corefile", "the Corefile")
	flag.Parse()
	f, err := os.Open(*conf)
	if err != nil {
		log.Fatal(err)
	}
	zones, err := read(f)
	if err != nil {
		log.Fatalf("%s: %v", *conf, err)
	}
	mux := dns.NewServeMux()
	mux.HandleFunc(".", refuse)
	for _, z := range zones {
		mux.HandleFunc(z, answer)
		log.Printf("whoami of %s", z)
	}
	log.Fatal((&dns.Server{Addr: ":53", Net: "udp", Handler: mux}).ListenAndServe())
}

// read returns the zones of a Corefile that have whoami. All zones are to be of port 53.
func read(r io.Reader) (zones []string, err error) {
	zone := ""
	for s := bufio.NewScanner(r); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		switch head, opens := strings.CutSuffix(line, "{"); {
		case opens:
			name, port, found := strings.Cut(strings.TrimSpace(head), ":")
			if !found || port != "53" {
				return nil, fmt.Errorf("block %q: want ZONE:53", line)
			}
			zone = dns.Fqdn(name)
		case line == "whoami":
			zones = append(zones, zone)
		}
	}
	if len(zones) == 0 {
		return nil, fmt.Errorf("no zone has whoami")
	}
	return zones, nil
}

func refuse(w dns.ResponseWriter, q *dns.Msg) {
	reply(w, new(dns.Msg).SetRcode(q, dns.RcodeRefused))
}

// answer says in the additional section who asks: an address, and a port as SRV.
func answer(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	m.Authoritative = true
	from, ok := w.RemoteAddr().(*net.UDPAddr)
	if !ok || len(q.Question) != 1 {
		reply(w, m.SetRcode(q, dns.RcodeFormatError))
		return
	}
	name := q.Question[0].Name
	head := func(kind uint16, name string) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET}
	}
	if v4 := from.IP.To4(); v4 != nil {
		m.Extra = append(m.Extra, &dns.A{Hdr: head(dns.TypeA, name), A: v4})
	} else {
		m.Extra = append(m.Extra, &dns.AAAA{Hdr: head(dns.TypeAAAA, name), AAAA: from.IP})
	}
	m.Extra = append(m.Extra, &dns.SRV{Hdr: head(dns.TypeSRV, "_udp."+name), Port: from.AddrPort().Port(), Target: "."})
	reply(w, m)
}

func reply(w dns.ResponseWriter, m *dns.Msg) {
	if err := w.WriteMsg(m); err != nil {
		log.Printf("answer %s: %v", w.RemoteAddr(), err)
	}
}
