package gateway

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// nameAttribute is one of a distinguished name's. In an rdnSET, several stand for one.
type nameAttribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// rdnSET is a part of a distinguished name; crypto/x509/pkix loses which attributes belong together.
type rdnSET []nameAttribute

// attributeNames are those by which OpenSSL calls attributes.
var attributeNames = map[string]string{
	"2.5.4.3": "CN", "2.5.4.4": "SN", "2.5.4.5": "serialNumber", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.9": "street",
	"2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.12": "title", "2.5.4.13": "description", "2.5.4.17": "postalCode", "2.5.4.41": "name",
	"2.5.4.42": "GN", "2.5.4.43": "initials", "2.5.4.44": "generationQualifier", "2.5.4.45": "x500UniqueIdentifier", "2.5.4.46": "dnQualifier",
	"2.5.4.65": "pseudonym", "2.5.4.97": "organizationIdentifier",
	"1.2.840.113549.1.9.1": "emailAddress", "0.9.2342.19200300.100.1.1": "UID", "0.9.2342.19200300.100.1.25": "DC",
}

// distinguishedName is a certificate's subject as PostgreSQL compares it for clientname=DN: by
// RFC 2253, the most special part first, as OpenSSL writes it.
func distinguishedName(c *x509.Certificate) (string, error) {
	var parts []rdnSET
	if rest, err := asn1.Unmarshal(c.RawSubject, &parts); err != nil || len(rest) > 0 {
		return "", fmt.Errorf("the subject of a certificate makes no sense: %w", err)
	}
	var b strings.Builder
	for i, part := range slices.Backward(parts) {
		for j, a := range slices.Backward(part) {
			if err := a.write(&b); err != nil {
				return "", err
			}
			if j > 0 {
				b.WriteByte('+')
			}
		}
		if i > 0 {
			b.WriteByte(',')
		}
	}
	return b.String(), nil
}

func (a *nameAttribute) write(b *strings.Builder) error {
	name, known := attributeNames[a.Type.String()]
	var value string
	if rest, err := asn1.Unmarshal(a.Value.FullBytes, &value); !known || err != nil || len(rest) > 0 {
		if !known {
			name = a.Type.String()
		}
		b.WriteString(name + "=#" + strings.ToUpper(hex.EncodeToString(a.Value.FullBytes)))
		return nil
	}
	if strings.Contains(value, "\x00") {
		return fmt.Errorf("the subject of a certificate has a null character in its %s", name)
	}
	b.WriteString(name + "=")
	for i := range len(value) {
		switch ch := value[i]; {
		case strings.IndexByte(`,+"\<>;`, ch) >= 0, i == 0 && (ch == '#' || ch == ' '), i == len(value)-1 && ch == ' ':
			b.WriteByte('\\')
			b.WriteByte(ch)
		case ch < ' ' || ch >= 0x7f:
			fmt.Fprintf(b, `\%02X`, ch)
		default:
			b.WriteByte(ch)
		}
	}
	return nil
}
