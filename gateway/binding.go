package gateway

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
)

// shownCertificate notes which certificate a client is shown.
type shownCertificate struct {
	from *tls.Config
	cert *tls.Certificate
}

// choose is a tls.Config's GetCertificate.
func (s *shownCertificate) choose(hello *tls.ClientHelloInfo) (cert *tls.Certificate, err error) {
	defer func() { s.cert = cert }()
	if s.from.GetCertificate != nil {
		if cert, err := s.from.GetCertificate(hello); cert != nil || err != nil {
			return cert, err
		}
	}
	for i := range s.from.Certificates {
		if c := &s.from.Certificates[i]; hello.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	if len(s.from.Certificates) == 0 {
		return nil, errors.New("there is no certificate for clients")
	}
	return &s.from.Certificates[0], nil
}

// binding is tls-server-end-point of RFC 5929: the certificate's hash, by the function
// that it is signed with, but never by MD5 or SHA-1. nil if it cannot be told.
func (s *shownCertificate) binding() []byte {
	if s.cert == nil || len(s.cert.Certificate) == 0 {
		return nil
	}
	leaf, err := x509.ParseCertificate(s.cert.Certificate[0])
	if err != nil {
		return nil
	}
	hash := crypto.SHA256
	switch leaf.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		hash = crypto.SHA384
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		hash = crypto.SHA512
	case x509.PureEd25519, x509.UnknownSignatureAlgorithm:
		return nil // undefined for these
	}
	h := hash.New()
	h.Write(leaf.Raw)
	return h.Sum(nil)
}
