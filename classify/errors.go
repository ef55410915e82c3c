package classify

// StateFeatureNotSupported is the SQLSTATE of every [Refusal].
const StateFeatureNotSupported = "0A000"

// Refusal is the error with which a statement is answered that cannot be
// mirrored. It is part of the verdict: nothing was sent to a server.
type Refusal struct {
	// Feature names what is refused, for an operator who allows it by name:
	// "large objects", "prepared transactions", "subscriptions" ….
	Feature string
	// Message says what is not supported.
	Message string
	// Hint says what to do instead.
	Hint string
}

// Error is the message; the hint travels apart, as in the protocol.
func (r *Refusal) Error() string { return r.Message }

// SQLState is always [StateFeatureNotSupported].
func (r *Refusal) SQLState() string { return StateFeatureNotSupported }
