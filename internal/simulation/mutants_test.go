package simulation

import "testing"

// mutants are rules broken on purpose, and after how many schedules that must have been noticed; 0 is
// so many that it is left to -sim.mutants, which says how many each is given.
var mutants = []struct {
	bug   Bug
	name  string
	rule  string
	limit uint64
}{
	{BugNoMajority, "no_majority", "a view is based on promises of a majority", 500},
	{BugAcceptedByOne, "accepted_by_one", "a view is chosen by a majority", 500},
	{BugUncleanElection, "unclean_election", "the leader comes from the in-sync set", 500},
	{BugNoFence, "no_fence", "an apply takes the fence of its epoch", 3000},
	{BugPromiseEndsNobody, "promise_ends_nobody", "a hard promise ends whoever writes", 0},
	{BugAckBeforeApply, "ack_before_apply", "nothing is acknowledged before followers have it", 500},
	{BugAckWithoutReread, "ack_without_reread", "the batch shows the epoch of the view that acknowledges", 13500},
	{BugOtherTerm, "other_term", "a commit is acknowledged in its own term", 500},
	{BugEagerExclusion, "eager_exclusion", "nothing is acknowledged by fewer before a majority knows", 500},
	{BugEpochTwice, "epoch_twice", "an epoch is promised once", 500},
	{BugSoftFollower, "soft_follower", "whoever is not the kept leader promised hard", 500},
	{BugSoftIsHard, "soft_is_hard", "who does not lead promises hard however it is asked", 0},
	{BugJoinBeforePromise, "join_before_promise", "the last delta of a joiner comes after the promises", 13500},
	{BugJoinOtherTerm, "join_other_term", "a joiner follows the present leader already", 19500},
	{BugRoleBeforeChosen, "role_before_chosen", "nobody takes office before the view is chosen", 500},
	{BugTailKept, "tail_kept", "a tail is undone", 1000},
	{BugTailInSync, "tail_in_sync", "who has what the new leader lacks is not in sync", 500},
	{BugToldFromOne, "told_from_one", "an outcome is acknowledged before it is told", 500},
	{BugResolveLooksOnly, "resolve_looks_only", "a lost connection's backend is gone before its outcome is told", 2500},
	{BugNoLease, "no_lease", "reads end with the lease", 0},
	{BugNoDrain, "no_drain", "nothing is acknowledged while somebody may read by an older view", 500},
	{BugSettledAlways, "settled_always", "only who is alone, or leaves nobody out, need not wait", 500},
	{BugDrainWithoutSlack, "drain_without_slack", "clocks do not run alike", 0},
	{BugLeaseFromAnswer, "lease_from_answer", "a lease counts from before it was asked for", 0},
	{BugLeaseLate, "lease_late", "a lease is shortened here before it is there", 0},
	{BugUnknownReads, "unknown_reads", "who confirms has the reader on its list", 0},
	{BugBootIgnored, "boot_ignored", "a crash ends a term", 23500},
	{BugStrangersVote, "strangers_vote", "a server that was replaced has no vote", 0},
	{BugStrangersAccept, "strangers_accept", "… and what it accepts is not counted", 4000},
	{BugOldServersVote, "old_servers_vote", "whose seat it is the newest view tells", 0},
	{BugResyncTargetVotes, "resync_target_votes", "the view before a full copy is chosen without its target", 0},
	{BugAdoptUnchosen, "adopt_unchosen", "a view is gone by once a majority has accepted it", 500},
	{BugNoJointVotes, "no_joint_votes", "voters are changed by majorities of both lists", 0},
	{BugNoIdentity, "no_identity", "nothing is read from another server under a member's address", 500},
}

func TestMutants(t *testing.T) {
	for _, x := range mutants {
		limit := max(x.limit, *mutantFlag)
		if limit == 0 {
			continue
		}
		t.Run(x.name, func(t *testing.T) {
			var mem arena
			for seed := uint64(1); seed <= limit; seed++ {
				w := newWorld(Options{Seed: seed, Steps: steps, Bug: x.bug}, &mem)
				if err := w.run(); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Errorf("%d schedules did not notice that this rule is broken: %s", limit, x.rule)
		})
	}
}
