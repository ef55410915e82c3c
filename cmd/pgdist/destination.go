package main

import "github.com/pgdist/pgdist/classify"

// destination says where a statement outside a transaction runs, at the default
// consistency.
func destination(class classify.Class, s *classify.Statement, hint classify.Hint) string {
	if s.Temp && class != classify.Refused {
		return "the leader; temporary, so not mirrored"
	}
	switch class {
	case classify.Read:
		if hint == classify.HintLeader {
			return "the leader, read-only, as its comment asks"
		}
		return "any member in sync, read-only"
	case classify.LeaderRead:
		return "the leader"
	case classify.Session:
		return "no server yet: the session remembers it for whichever member serves it next"
	case classify.Transaction:
		return "wherever the transaction is; a commit of writes is acknowledged once every member in sync has it"
	case classify.Write:
		if hint == classify.HintAny {
			return "any member in sync, read-only, as its comment asks; the leader if it writes after all"
		}
		return "the leader; acknowledged once every member in sync has it"
	case classify.DDL:
		return "the leader, and as text at its place on every member"
	case classify.Utility:
		return "the leader, then each of the other members for itself"
	case classify.Refused:
		return "nowhere: answered with SQLSTATE " + classify.StateFeatureNotSupported
	}
	return "the leader, whose own error comes back; whatever it does write is mirrored"
}
