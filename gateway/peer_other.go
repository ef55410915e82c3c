//go:build !linux

package gateway

import (
	"errors"
	"net"
)

// systemUser is not found out elsewhere than on Linux.
func systemUser(net.Conn) (string, error) { return "", errors.ErrUnsupported }
