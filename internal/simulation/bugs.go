package simulation

import (
	"slices"

	"github.com/pgdist/pgdist/health"
)

// Bug is a rule that is broken on purpose, to see that it is noticed.
type Bug int

// What can be broken.
const (
	BugNone Bug = iota
	BugNoMajority
	BugAcceptedByOne
	BugUncleanElection
	BugNoFence
	BugPromiseEndsNobody
	BugAckBeforeApply
	BugAckWithoutReread
	BugOtherTerm
	BugEagerExclusion
	BugEpochTwice
	BugSoftFollower
	BugSoftIsHard
	BugJoinBeforePromise
	BugJoinOtherTerm
	BugRoleBeforeChosen
	BugTailKept
	BugTailInSync
	BugToldFromOne
	BugResolveLooksOnly
	BugResolveByTerm
	BugNoLease
	BugNoDrain
	BugSettledAlways
	BugDrainWithoutSlack
	BugLeaseFromAnswer
	BugLeaseLate
	BugUnknownReads
	BugNameKept
	BugLeaseLengthened
	BugBootIgnored
	BugStrangersVote
	BugStrangersAccept
	BugOldServersVote
	BugResyncTargetVotes
	BugAdoptUnchosen
	BugNoJointVotes
	BugSettleUnseen
	BugNoIdentity
	BugPromisedForEver
	bugs
)

// bend changes what health.Propose is given, where that is how a rule is broken.
func (d *dist) bend(stands []health.Stand[place]) {
	switch d.w.Bug {
	case BugNoMajority: // only who answers has a vote
		for i, s := range stands {
			if s.Accepted == nil {
				continue
			}
			v := *s.Accepted
			v.Members = slices.Clone(v.Members)
			for j := range v.Members {
				if !slices.ContainsFunc(stands, func(x health.Stand[place]) bool { return x.Member == v.Members[j].ID }) {
					v.Members[j].Weight = 0
				}
			}
			v.Former = nil
			stands[i].Accepted = &v
		}
	case BugUncleanElection: // whoever answers may be elected
		for i, s := range stands {
			if s.Accepted == nil {
				continue
			}
			v := *s.Accepted
			v.InSync = nil
			for _, m := range v.Members {
				if !m.Witness {
					v.InSync = append(v.InSync, m.ID)
				}
			}
			stands[i].Accepted = &v
		}
	case BugNoJointVotes:
		for i, s := range stands {
			if s.Accepted != nil {
				v := *s.Accepted
				v.Former = nil
				stands[i].Accepted = &v
			}
		}
	}
}

// unbend sets right what bend has put into the view.
func (d *dist) unbend(v *health.View) {
	switch d.w.Bug {
	case BugNoMajority:
		v.Members = slices.Clone(d.cur.Members)
	case BugNoJointVotes:
		v.Former = nil
	}
}

// within compares positions.
func (d *dist) within() func(a, b place) (bool, error) {
	if d.w.Bug == BugTailInSync {
		return func(a, b place) (bool, error) { return true, nil }
	}
	return within
}

// majority tells whether enough have accepted.
func (d *dist) majority(v *health.View, ids []id) bool {
	if d.w.Bug == BugAcceptedByOne {
		return len(ids) > 0
	}
	return v.Quorum(ids)
}

// changing tells whether the newest view among the promises is one that gives or takes votes.
func changing(stands []health.Stand[place]) bool {
	var base *health.View
	for _, s := range stands {
		if s.Accepted != nil && (base == nil || s.Accepted.Epoch > base.Epoch) {
			base = s.Accepted
		}
	}
	return base != nil && len(base.Former) > 0
}
