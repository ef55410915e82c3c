package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pgdist/pgdist/gateway"
)

// clientsVariable tells the program that is executed anew where it finds the clients that it is to
// go on with: the number of a descriptor.
const clientsVariable = "PGDIST_CLIENTS"

// takesLine is what version says of the clients that a restart in place may hand to this program.
const takesLine = "restart in place: takes clients in format "

// takesClients tells whether a program, which says that of its version, can go on with clients of
// this one's.
func takesClients(version string) bool {
	for line := range strings.Lines(version) {
		if format, ok := strings.CutPrefix(strings.TrimSpace(line), takesLine); ok {
			return format == strconv.Itoa(gateway.HandoverFormat)
		}
	}
	return false
}

// clientsHandedOver are the clients that this program had before it was executed anew; nil is
// none. With an error there may be some, too, who can only be told that they end.
func clientsHandedOver() (*gateway.Handover, error) {
	text := os.Getenv(clientsVariable)
	if text == "" {
		return nil, nil
	}
	if err := os.Unsetenv(clientsVariable); err != nil { // none of a child's business
		return nil, err
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 0 {
		return nil, fmt.Errorf("%s=%s is no descriptor", clientsVariable, text)
	}
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "clients")
	h, err := gateway.ReadHandover(f)
	return h, errors.Join(err, f.Close())
}

// endClientsLeft tells clients that they end, if the command that they were handed to did not come
// to the point of taking them.
func endClientsLeft() {
	h, _ := clientsHandedOver() // whatever is wrong with it
	_ = h.Close()               // the process ends
}
