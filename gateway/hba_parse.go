package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
)

// ParseHBA reads rules in the format of pg_hba.conf, PostgreSQL 16's, from text. path is what
// messages call it, and where files that it includes are looked for. An error names every line that is wrong.
func ParseHBA(path, text string) (*HBA, error) {
	h := &HBA{}
	err := readLines(path, text, 0, func(where string, fields [][]token) error {
		r, err := parseRule(fields)
		if err != nil {
			return err
		}
		r.where = where
		h.rules = append(h.rules, *r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// ReadHBA reads a file of that format.
func ReadHBA(path string) (*HBA, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("hba file: %w", err)
	}
	return ParseHBA(path, string(text))
}

// parseRule makes a rule of a line.
func parseRule(fields [][]token) (*hbaRule, error) {
	r := &hbaRule{}
	var words []string
	for _, f := range fields {
		var list []string
		for _, t := range f {
			list = append(list, t.text)
		}
		words = append(words, strings.Join(list, ","))
	}
	r.text = strings.Join(words, " ")
	next := func(what string) ([]token, error) {
		if len(fields) == 0 {
			return nil, fmt.Errorf("the line ends before %s", what)
		}
		f := fields[0]
		fields = fields[1:]
		return f, nil
	}
	one := func(what string) (token, error) {
		f, err := next(what)
		if err == nil && len(f) != 1 {
			err = fmt.Errorf("%s is a list: one is wanted", what)
		}
		if err != nil {
			return token{}, err
		}
		return f[0], nil
	}
	kind, err := one("its type")
	if err != nil {
		return nil, err
	}
	if r.kinds, _ = connKinds[kind.text]; r.kinds == 0 && kind.text != "hostgssenc" {
		return nil, fmt.Errorf("type %q: it must be local, host, hostssl or hostnossl", kind.text)
	}
	list, err := next("the database")
	if err != nil {
		return nil, err
	}
	if r.database, err = parseNames(list, "all", "sameuser", "samerole", "samegroup", "replication"); err != nil {
		return nil, err
	}
	if list, err = next("the user"); err != nil {
		return nil, err
	}
	if r.user, err = parseNames(list, "all"); err != nil {
		return nil, err
	}
	if kind.text != "local" {
		address, err := one("the address")
		if err != nil {
			return nil, err
		}
		bare, err := r.address.parse(address)
		if err != nil {
			return nil, err
		}
		if bare {
			mask, err := one("the address's mask")
			if err != nil {
				return nil, err
			}
			if err := r.address.mask(mask.text); err != nil {
				return nil, err
			}
		}
	}
	method, err := one("the method")
	if err != nil {
		return nil, err
	}
	if err := r.setMethod(method.text); err != nil {
		return nil, err
	}
	for _, f := range fields {
		for _, t := range f {
			if err := r.option(t.text); err != nil {
				return nil, err
			}
		}
	}
	if r.method == Cert {
		r.needCert = certVerifyFull
	}
	return r, nil
}

func parseNames(list []token, keywords ...string) (names []hbaName, err error) {
	for _, t := range list {
		n := hbaName{name: t.text}
		switch {
		case len(t.text) > 0 && t.text[0] == '/': // quoted, too: that is how commas get into it
			if n.match, err = regexp.Compile(t.text[1:]); err != nil {
				return nil, fmt.Errorf("%s: %w", t.text, err)
			}
		case t.quoted:
		case slices.Contains(keywords, t.text):
			n.keyword = t.text
			if n.keyword == "samegroup" { // its old name
				n.keyword = "samerole"
			}
		case len(t.text) > 1 && t.text[0] == '+' && !slices.Contains(keywords, "sameuser"):
			n.member, n.name = true, t.text[1:]
		}
		names = append(names, n)
	}
	return names, nil
}

// parse reads an address; bare tells that its mask follows in a field of its own.
func (a *hbaAddress) parse(t token) (bare bool, err error) {
	switch {
	case t.is("all"):
		a.all = true
		return false, nil
	case t.is("samehost"), t.is("samenet"):
		a.keyword = t.text
		return false, nil
	}
	if p, err := netip.ParsePrefix(t.text); err == nil {
		a.prefix = unmapped(p)
		return false, nil
	}
	ip, err := netip.ParseAddr(t.text)
	if err != nil || ip.Zone() != "" {
		return false, fmt.Errorf("address %q: it must be all, samehost, samenet, or an address with its prefix such as 10.0.0.0/8; names of hosts are not looked up", t.text)
	}
	a.prefix = netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen())
	return true, nil
}

// mask takes the mask of the address read before.
func (a *hbaAddress) mask(text string) error {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return fmt.Errorf("mask %q: after an address without /prefix its mask must follow, such as 255.255.255.0", text)
	}
	ones, bits := net.IPMask(ip.AsSlice()).Size()
	if bits == 0 || bits != a.prefix.Addr().BitLen() {
		return fmt.Errorf("mask %q does not fit its address", text)
	}
	a.prefix = netip.PrefixFrom(a.prefix.Addr(), ones).Masked()
	return nil
}

func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked()
	}
	return p.Masked()
}

func (r *hbaRule) setMethod(method string) error {
	switch m := Auth(method); m {
	case Trust, Reject, SCRAM, MD5:
		r.method = m
	case Cert:
		if r.kinds != viaTLS {
			return errors.New("cert can only be asked of hostssl connections")
		}
		r.method = m
	case Peer:
		if r.kinds != viaSocket {
			return errors.New("peer can only be asked of local connections")
		}
		r.method = m
	case "password":
		return errors.New("method password would send passwords in clear: use scram-sha-256")
	case "gss", "sspi", "ident", "ldap", "radius", "pam", "bsd", "oauth":
		return fmt.Errorf("method %s is not one of the gateway's: trust, reject, scram-sha-256, md5, cert, peer", method)
	default:
		return fmt.Errorf("method %q: it must be trust, reject, scram-sha-256, md5, cert or peer", method)
	}
	return nil
}

func (r *hbaRule) option(text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return fmt.Errorf("option %q is not in the form name=value", text)
	}
	switch name {
	case "map":
		if r.method != Cert && r.method != Peer && r.needCert != certVerifyFull {
			return errors.New("map is for methods cert and peer, or behind clientcert=verify-full")
		}
		r.identMap = value
	case "clientcert":
		if r.kinds != viaTLS {
			return errors.New("clientcert can only be asked of hostssl connections")
		}
		switch value {
		case "verify-ca":
			r.needCert = certVerifyCA
			if r.method == Cert {
				return errors.New("clientcert=verify-ca is less than method cert asks for")
			}
		case "verify-full":
			r.needCert = certVerifyFull
		default:
			return fmt.Errorf("clientcert=%s: it must be verify-ca or verify-full", value)
		}
	case "clientname":
		if r.kinds != viaTLS {
			return errors.New("clientname can only be asked of hostssl connections")
		}
		if value != "CN" && value != "DN" {
			return fmt.Errorf("clientname=%s: it must be CN or DN", value)
		}
		r.wholeDN = value == "DN"
	default:
		return fmt.Errorf("option %s is not one of the gateway's: map, clientcert, clientname", name)
	}
	return nil
}

// ownPrefixes are this machine's addresses with their networks.
func ownPrefixes() (list []netip.Prefix) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil // nobody is on this machine, then
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		ones, bits := n.Mask.Size()
		if !ok || bits == 0 {
			continue
		}
		if ip.Is4In6() && bits == 128 {
			ones -= 96
		}
		list = append(list, netip.PrefixFrom(ip.Unmap(), ones))
	}
	return list
}
