// Package soak lets many kinds of clients use a gateway for a long time while the
// databases behind it are killed, frozen and restarted, and sees that nothing grows:
// no goroutine, no open file, no memory, no connection to a server. What the clients
// were told is compared with what all databases hold in the end.
//
// The gateway is a process of its own. A run goes in rounds: in each one all clients
// come, work under faults, and leave; then the gateway is at rest and is measured.
package soak
