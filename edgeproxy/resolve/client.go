package resolve

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Errors of a lookup that reached a server.
var (
	errNoName = errors.New("no such name")
	errNoData = errors.New("the name has no address")
)

// maxChain bounds aliases (CNAME) of one answer.
const maxChain = 16

// udpSize is what a server may send in one datagram: more is fragmented on the
// way or lost (RFC 9715).
const udpSize = 1232

// client asks servers for the records of one name at a time.
type client struct{ config }

// addresses resolves a host name. A process with both an IPv4 and an IPv6 address
// is one process: IPv6 is asked for only where there is no IPv4.
func (c *client) addresses(ctx context.Context, host string) ([]netip.Addr, time.Duration, error) {
	if a := c.hosts[strings.ToLower(strings.TrimSuffix(host, "."))]; len(a) > 0 {
		return a, hostsTTL, nil
	}
	var answer answer
	err := c.search(host, func(name dnsmessage.Name) error {
		var err error
		if answer, err = c.ask(ctx, name, dnsmessage.TypeA); err == nil && len(answer.addrs) == 0 {
			answer, err = c.ask(ctx, name, dnsmessage.TypeAAAA)
		}
		if err == nil && len(answer.addrs) == 0 {
			err = errNoData
		}
		return err
	})
	return answer.addrs, answer.ttl, err
}

// services resolves the name of a service, _service._proto.name.
func (c *client) services(ctx context.Context, host string) ([]dnsmessage.SRVResource, time.Duration, error) {
	var answer answer
	err := c.search(host, func(name dnsmessage.Name) error {
		var err error
		if answer, err = c.ask(ctx, name, dnsmessage.TypeSRV); err == nil && len(answer.services) == 0 {
			err = errNoData
		}
		return err
	})
	return answer.services, answer.ttl, err
}

// search tries a name with the search list's endings, as resolv.conf(5) says:
// as it is first when it has at least ndots dots, else last.
func (c *client) search(host string, ask func(dnsmessage.Name) error) error {
	var names []string
	full := strings.HasSuffix(host, ".")
	asItIs := strings.TrimSuffix(host, ".") + "."
	if !full {
		for _, s := range c.domains {
			names = append(names, host+"."+strings.TrimSuffix(s, ".")+".")
		}
	}
	if full || strings.Count(host, ".") >= c.ndots {
		names = append([]string{asItIs}, names...)
	} else {
		names = append(names, asItIs)
	}
	var first error
	for _, n := range names {
		name, err := dnsmessage.NewName(n)
		if err != nil {
			continue // too long with this ending
		}
		err = ask(name)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errNoName) && !errors.Is(err, errNoData) {
			return fmt.Errorf("%s: %w", n, err) // another ending would be another name
		}
		if first == nil {
			first = fmt.Errorf("%s: %w", n, err)
		}
	}
	if first == nil {
		return errNoName
	}
	return first
}

// answer is what one question brought.
type answer struct {
	addrs    []netip.Addr
	services []dnsmessage.SRVResource
	ttl      time.Duration
}

// ask asks the servers in turn until one answers.
func (c *client) ask(ctx context.Context, name dnsmessage.Name, typ dnsmessage.Type) (answer, error) {
	q := dnsmessage.Question{Name: name, Type: typ, Class: dnsmessage.ClassINET}
	var errs []error
	for range c.attempts {
		for _, server := range c.servers {
			a, err := c.exchange(ctx, server, q)
			if err == nil || errors.Is(err, errNoName) {
				return a, err
			}
			errs = append(errs, fmt.Errorf("server %s: %w", server, err))
			if ctx.Err() != nil {
				return answer{}, errors.Join(errs...)
			}
		}
	}
	if len(errs) == 0 {
		return answer{}, errors.New("no DNS server is known")
	}
	return answer{}, errs[len(errs)-1]
}

func (c *client) exchange(ctx context.Context, server netip.AddrPort, q dnsmessage.Question) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	id := uint16(rand.Uint32())
	msg, err := question(id, q)
	if err != nil {
		return answer{}, err
	}
	a, cut, err := c.over(ctx, "udp", server, id, q, msg)
	if cut {
		a, _, err = c.over(ctx, "tcp", server, id, q, msg)
	}
	return a, err
}

func question(id uint16, q dnsmessage.Question) ([]byte, error) {
	// Two octets are left for the length that goes before it over TCP.
	b := dnsmessage.NewBuilder(make([]byte, 2, 512), dnsmessage.Header{ID: id, RecursionDesired: true})
	var opt dnsmessage.ResourceHeader
	if err := errors.Join(b.StartQuestions(), b.Question(q), b.StartAdditionals(),
		opt.SetEDNS0(udpSize, dnsmessage.RCodeSuccess, false), b.OPTResource(opt, dnsmessage.OPTResource{})); err != nil {
		return nil, err
	}
	msg, err := b.Finish()
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint16(msg, uint16(len(msg)-2))
	return msg, nil
}

// over asks over one transport; cut says that the answer did not fit into it.
func (c *client) over(ctx context.Context, network string, server netip.AddrPort, id uint16, q dnsmessage.Question, msg []byte) (a answer, cut bool, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, server.String())
	if err != nil {
		return answer{}, false, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return answer{}, false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if network == "udp" {
		msg = msg[2:]
	}
	if _, err := conn.Write(msg); err != nil {
		return answer{}, false, err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := receive(conn, network, buf)
		if err != nil {
			return answer{}, false, err
		}
		a, cut, ours, err := parse(buf[:n], id, q)
		if ours {
			return a, cut && network == "udp", err
		}
		if network == "tcp" {
			return answer{}, false, errors.New("the answer is to another question")
		}
		// Somebody else's datagram, or a forged one: the right one may still come.
	}
}

func receive(conn net.Conn, network string, buf []byte) (int, error) {
	if network == "udp" {
		return conn.Read(buf)
	}
	if _, err := io.ReadFull(conn, buf[:2]); err != nil {
		return 0, err
	}
	return io.ReadFull(conn, buf[:binary.BigEndian.Uint16(buf)])
}

// parse reads an answer; ours is false when it belongs to no question of q and id.
func parse(msg []byte, id uint16, q dnsmessage.Question) (a answer, cut, ours bool, err error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.ID != id || !h.Response {
		return answer{}, false, false, err
	}
	asked, err := p.AllQuestions()
	if err != nil || len(asked) != 1 || !sameQuestion(asked[0], q) {
		return answer{}, false, false, err
	}
	switch {
	case h.Truncated:
		return answer{}, true, true, errors.New("the answer is cut short")
	case h.RCode == dnsmessage.RCodeNameError:
		return answer{}, false, true, errNoName
	case h.RCode != dnsmessage.RCodeSuccess:
		return answer{}, false, true, fmt.Errorf("the server says %s", strings.TrimPrefix(h.RCode.String(), "RCode"))
	}
	records, err := p.AllAnswers()
	if err != nil {
		return answer{}, false, true, fmt.Errorf("malformed answer: %w", err)
	}
	return collect(records, q), false, true, nil
}

func sameQuestion(a, b dnsmessage.Question) bool {
	return a.Type == b.Type && a.Class == b.Class && sameName(a.Name, b.Name)
}

func sameName(a, b dnsmessage.Name) bool { return strings.EqualFold(a.String(), b.String()) }

// collect follows the aliases of an answer and takes the records at their end. An
// answer lives as long as its shortest-lived record.
func collect(records []dnsmessage.Resource, q dnsmessage.Question) answer {
	var a answer
	ttl := uint32(1<<32 - 1)
	name := q.Name
next:
	for range maxChain {
		for _, r := range records {
			if alias, ok := r.Body.(*dnsmessage.CNAMEResource); ok && sameName(r.Header.Name, name) && q.Type != dnsmessage.TypeCNAME {
				name = alias.CNAME
				ttl = min(ttl, r.Header.TTL)
				continue next
			}
		}
		break
	}
	for _, r := range records {
		if !sameName(r.Header.Name, name) || r.Header.Class != dnsmessage.ClassINET || r.Header.Type != q.Type {
			continue
		}
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			a.addrs = append(a.addrs, netip.AddrFrom4(body.A))
		case *dnsmessage.AAAAResource:
			a.addrs = append(a.addrs, netip.AddrFrom16(body.AAAA))
		case *dnsmessage.SRVResource:
			a.services = append(a.services, *body)
		default:
			continue
		}
		ttl = min(ttl, r.Header.TTL)
	}
	a.ttl = time.Duration(ttl) * time.Second
	return a
}
