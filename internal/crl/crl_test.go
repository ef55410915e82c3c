package crl

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// party has a certificate with its key.
type party struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate; a root's by is nil.
func issue(t *testing.T, by *party, name string, serial int64, authority bool) *party {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: authority, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if authority {
		c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageCertSign|x509.KeyUsageCRLSign, nil
	}
	if by == nil {
		by = &party{c, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &party{c, key}
}

// list is a party's list of revoked numbers, in PEM.
func (p *party) list(t *testing.T, l x509.RevocationList, revoked ...int64) string {
	t.Helper()
	if l.Number == nil {
		l.Number = big.NewInt(1)
	}
	if l.ThisUpdate.IsZero() {
		l.ThisUpdate = time.Now().Add(-time.Minute)
	}
	if l.NextUpdate.IsZero() {
		l.NextUpdate = time.Now().Add(time.Hour)
	}
	for _, n := range revoked {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: l.ThisUpdate})
	}
	der, err := x509.CreateRevocationList(rand.Reader, &l, p.cert, p.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCheck says which chains are taken, and why not.
func TestCheck(t *testing.T) {
	root, impostor := issue(t, nil, "root", 1, true), issue(t, nil, "root", 1, true)
	between := issue(t, root, "between", 2, true)
	leaf, other := issue(t, between, "leaf", 3, false), issue(t, between, "other", 4, false)
	chains := func(p *party) [][]*x509.Certificate { return [][]*x509.Certificate{{p.cert, between.cert, root.cert}} }
	full := x509.RevocationList{}
	none := root.list(t, full)
	past := x509.RevocationList{ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: time.Now().Add(-time.Hour)}
	future := x509.RevocationList{ThisUpdate: time.Now().Add(time.Hour), NextUpdate: time.Now().Add(2 * time.Hour)}
	path := filepath.Join(t.TempDir(), "lists.pem")
	for _, c := range []struct {
		name, text, wrong string // "" is nothing
		leaf              *party
		revoked           bool
	}{
		{"nothing is revoked", none + between.list(t, full), "", leaf, false},
		{"another is", none + between.list(t, full, 4), "", leaf, false},
		{"it is", none + between.list(t, full, 4), "CN=other, number 4", other, true},
		{"its issuer is", root.list(t, full, 2) + between.list(t, full), "CN=between", leaf, true},
		{"the issuer's list is missing", none, "no list of CN=between", leaf, false},
		{"the root's list is missing", between.list(t, full), "no list of CN=root", leaf, false},
		{"another root of that name", impostor.list(t, full) + between.list(t, full), "no list of CN=root", leaf, false},
		{"another root's word", none + impostor.list(t, full, 2) + between.list(t, full), "", leaf, false},
		{"an old list", none + between.list(t, past), "held until", leaf, false},
		{"a list to come", none + between.list(t, future), "not yet", leaf, false},
		{"the later of two", none + between.list(t, past) + between.list(t, full), "", leaf, false},
		{"the later of two, first", none + between.list(t, full, 3) + between.list(t, past), "CN=leaf", leaf, true},
	} {
		write(t, path, c.text)
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		err = f.Check(chains(c.leaf), time.Now())
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) || errors.Is(err, ErrRevoked) != c.revoked {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	write(t, path, none+between.list(t, full))
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Check(nil, time.Now()); err == nil {
		t.Error("a certificate without a chain is taken")
	}
	if err := f.CheckClient(tls.ConnectionState{}); err != nil {
		t.Errorf("a client without a certificate: %v", err)
	}
	if err := f.CheckClient(tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf.cert}}); err == nil {
		t.Error("a client whose certificate was not verified is taken")
	}
	// What the connection has not verified is verified here.
	roots, strangers := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root.cert)
	strangers.AddCert(impostor.cert)
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf.cert, between.cert}}
	if err := f.CheckServer(roots)(state); err != nil {
		t.Error(err)
	}
	if err := f.CheckServer(strangers)(state); err == nil {
		t.Error("a server of another authority is taken")
	}
	// The file is read again.
	write(t, path, none+between.list(t, full, 3, 4))
	if err := f.CheckServer(roots)(state); !errors.Is(err, ErrRevoked) {
		t.Errorf("revoked meanwhile: %v", err)
	}
	write(t, path, "nonsense")
	if err := f.CheckServer(roots)(state); err == nil || !strings.Contains(err.Error(), "there is no list in it") {
		t.Errorf("without a list any more: %v", err)
	}
}

// TestOpen refuses what is no complete list.
func TestOpen(t *testing.T) {
	root := issue(t, nil, "root", 1, true)
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	good := root.list(t, x509.RevocationList{})
	block, _ := pem.Decode([]byte(good))
	delta := root.list(t, x509.RevocationList{ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}}})
	for name, c := range map[string]struct{ text, wrong string }{
		"empty": {"", "no list"}, "text": {"revoked: all", "no list"}, "der": {string(block.Bytes), ""}, "half": {string(block.Bytes[:40]), "list 1"},
		"certificate": {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.cert.Raw})), "it has a CERTIFICATE"}, "delta": {delta, "2.5.29.27 is critical"},
	} {
		path := filepath.Join(dir, name)
		write(t, path, c.text)
		if _, err := Open(path); (err == nil) != (c.wrong == "") || err != nil && !(strings.Contains(err.Error(), c.wrong) && strings.Contains(err.Error(), path)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
