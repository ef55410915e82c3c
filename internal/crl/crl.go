// Package crl tells whether certificates have been revoked, by lists that those who issued them
// have published in files (RFC 5280, section 5).
package crl

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// ErrRevoked is what a certificate is refused with that is on a list.
var ErrRevoked = errors.New("the certificate is revoked")

// File is a file of revocation lists, which is read again when it has changed. Its rules are
// OpenSSL's X509_V_FLAG_CRL_CHECK_ALL, as PostgreSQL asks for it: of each certificate up to the root, its issuer's list
// must be there, must be in force, and must not have it.
type File struct {
	path string

	mu    sync.Mutex // guards what follows
	read  os.FileInfo
	lists []*x509.RevocationList
}

// Open reads a file: lists in PEM, one after the other, or one in DER.
func Open(path string) (*File, error) {
	f := &File{path: path}
	_, err := f.current()
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Check returns an error unless one of the chains, each from a certificate to its root, has no
// certificate that is revoked, or of which that is not known.
func (f *File) Check(chains [][]*x509.Certificate, now time.Time) error {
	lists, err := f.current()
	if err != nil {
		return err
	}
	var errs []error
	for _, chain := range chains {
		err := f.checkChain(lists, chain, now)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return errors.New("there is no certificate whose issuer is known")
	}
	return errors.Join(errs...)
}

// CheckClient is for a tls.Config's VerifyConnection, at a server: a client that shows no
// certificate is not refused.
func (f *File) CheckClient(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	return f.Check(state.VerifiedChains, time.Now())
}

// CheckServer returns what is for a tls.Config's VerifyConnection, at a client. roots may be needed
// because libpq's verify-ca has crypto/tls verify nothing itself.
func (f *File) CheckServer(roots *x509.CertPool) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		chains := state.VerifiedChains
		if len(chains) == 0 && len(state.PeerCertificates) > 0 {
			others := x509.NewCertPool()
			for _, c := range state.PeerCertificates[1:] {
				others.AddCert(c)
			}
			var err error
			if chains, err = state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: others}); err != nil {
				return err
			}
		}
		return f.Check(chains, time.Now())
	}
}

func (f *File) checkChain(lists []*x509.RevocationList, chain []*x509.Certificate, now time.Time) error {
	for i, cert := range chain {
		issuer := chain[min(i+1, len(chain)-1)] // a root's is itself
		list := issuedBy(lists, issuer)
		switch {
		case list == nil:
			return fmt.Errorf("%s has no list of %s, which issued the certificate of %s", f.path, issuer.Subject, cert.Subject)
		case now.Before(list.ThisUpdate):
			return fmt.Errorf("the list of %s in %s is of %s, which is not yet", issuer.Subject, f.path, list.ThisUpdate)
		case !list.NextUpdate.IsZero() && now.After(list.NextUpdate):
			return fmt.Errorf("the list of %s in %s held until %s: put the next one there", issuer.Subject, f.path, list.NextUpdate)
		}
		for j := range list.RevokedCertificateEntries {
			if e := &list.RevokedCertificateEntries[j]; e.SerialNumber.Cmp(cert.SerialNumber) == 0 {
				return fmt.Errorf("%w: %s, number %x, since %s", ErrRevoked, cert.Subject, cert.SerialNumber, e.RevocationTime)
			}
		}
	}
	return nil
}

// issuedBy returns the latest list that an authority has signed, nil if there is none.
func issuedBy(lists []*x509.RevocationList, issuer *x509.Certificate) (latest *x509.RevocationList) {
	for _, l := range lists {
		if !bytes.Equal(l.RawIssuer, issuer.RawSubject) || latest != nil && !l.ThisUpdate.After(latest.ThisUpdate) {
			continue
		}
		if l.CheckSignatureFrom(issuer) == nil { // another authority of that name has others
			latest = l
		}
	}
	return latest
}

// current are the lists as the file has them now.
func (f *File) current() ([]*x509.RevocationList, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, fmt.Errorf("revocation lists: %w", err)
	}
	if f.read != nil && os.SameFile(info, f.read) && info.ModTime().Equal(f.read.ModTime()) && info.Size() == f.read.Size() {
		return f.lists, nil
	}
	text, err := os.ReadFile(f.path)
	if err != nil {
		return nil, fmt.Errorf("revocation lists: %w", err)
	}
	lists, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("revocation lists: %s: %w", f.path, err)
	}
	f.lists, f.read = lists, info
	return lists, nil
}

func parse(text []byte) (lists []*x509.RevocationList, err error) {
	var ders [][]byte
	for rest := text; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "X509 CRL" {
			return nil, fmt.Errorf("it has a %s: lists are wanted (X509 CRL)", b.Type)
		}
		ders = append(ders, b.Bytes)
	}
	if len(ders) == 0 && len(text) > 0 && text[0] == 0x30 { // an ASN.1 sequence
		ders = append(ders, text)
	}
	if len(ders) == 0 {
		return nil, errors.New("there is no list in it (-----BEGIN X509 CRL-----)")
	}
	for i, der := range ders {
		l, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("list %d: %w", i+1, err)
		}
		for _, e := range l.Extensions {
			if e.Critical { // a delta, or a list of some certificates only
				return nil, fmt.Errorf("list %d, of %s: extension %s is critical and not known here: a complete list is wanted", i+1, l.Issuer, e.Id)
			}
		}
		lists = append(lists, l)
	}
	return lists, nil
}
