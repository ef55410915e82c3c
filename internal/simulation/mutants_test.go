package simulation

import (
	"slices"
	"testing"
)

// mutant is a rule broken on purpose, in which scene that is looked for ("": in all, as they come), and in how
// many schedules of it at most: about ten times as many as it takes.
type mutant struct {
	bug   Bug
	name  string
	rule  string
	scene string
	limit uint64
}

var mutants = []mutant{
	{BugNoMajority, "no_majority", "a view is based on promises of a majority", "", 500},
	{BugAcceptedByOne, "accepted_by_one", "a view is chosen by a majority", "a change of votes that half of them know", 100},
	{BugUncleanElection, "unclean_election", "the leader comes from the in-sync set", "", 500},
	{BugNoFence, "no_fence", "an apply takes the fence of its epoch", "a proposer who keeps a leader of the past", 100},
	{BugPromiseEndsNobody, "promise_ends_nobody", "a hard promise ends whoever writes", "a proposer who keeps a leader of the past", 100},
	{BugAckBeforeApply, "ack_before_apply", "nothing is acknowledged before followers have it", "", 500},
	{BugAckWithoutReread, "ack_without_reread", "the batch shows the epoch of the view that acknowledges", "a reader that is struck off late", 500},
	{BugOtherTerm, "other_term", "a commit is acknowledged in its own term", "", 500},
	{BugEagerExclusion, "eager_exclusion", "nothing is acknowledged by fewer before a majority knows", "", 500},
	{BugEpochTwice, "epoch_twice", "an epoch is promised once", "", 500},
	{BugSoftFollower, "soft_follower", "whoever is not the kept leader promised hard", "", 500},
	{BugSoftIsHard, "soft_is_hard", "who does not lead promises hard however it is asked", "a proposer who keeps a leader of the past", 100},
	{BugJoinBeforePromise, "join_before_promise", "the last delta of a joiner comes after the promises", "a member that joins under the next leader", 100},
	{BugJoinOtherTerm, "join_other_term", "a joiner follows the present leader already", "a member that joins under the next leader", 100},
	{BugRoleBeforeChosen, "role_before_chosen", "nobody takes office before the view is chosen", "", 500},
	{BugTailKept, "tail_kept", "a tail is undone", "a member that joins under the next leader", 100},
	{BugTailInSync, "tail_in_sync", "who has what the new leader lacks is not in sync", "", 500},
	{BugToldFromOne, "told_from_one", "an outcome is acknowledged before it is told", "", 1000},
	{BugResolveLooksOnly, "resolve_looks_only", "a lost connection's backend is gone before its outcome is told", "a leader that takes office again", 100},
	{BugResolveByTerm, "resolve_by_term", "… in whatever term of that leader it was seen last", "a leader that takes office again", 100},
	{BugNoLease, "no_lease", "reads end with the lease", "readers that are left behind", 100},
	{BugNoDrain, "no_drain", "nothing is acknowledged while somebody may read by an older view", "", 500},
	{BugSettledAlways, "settled_always", "only who is alone, or leaves nobody out, need not wait", "", 500},
	{BugDrainWithoutSlack, "drain_without_slack", "clocks do not run alike", "readers that are left behind", 3000},
	{BugLeaseFromAnswer, "lease_from_answer", "a lease counts from before it was asked for", "readers that are left behind", 1000},
	{BugLeaseLate, "lease_late", "a lease is shortened here before it is there", "a reader that was alone", 1000},
	{BugUnknownReads, "unknown_reads", "who confirms has the reader on its list", "a copy made by an old view", 100},
	{BugNameKept, "name_kept", "whose lease has run out takes another name on the lists", "a reader that is struck off late", 100},
	{BugLeaseLengthened, "lease_lengthened", "a name's lease never gets longer", "a reader whose short lease comes late", 1500},
	{BugBootIgnored, "boot_ignored", "a crash ends a term", "crashes that nobody sees", 5000},
	{BugStrangersVote, "strangers_vote", "a server that was replaced has no vote", "an old server that votes", 500},
	{BugStrangersAccept, "strangers_accept", "… and what it accepts is not counted", "servers that are replaced", 3000},
	{BugOldServersVote, "old_servers_vote", "whose seat it is the newest view tells", "an old server that votes", 500},
	{BugResyncTargetVotes, "resync_target_votes", "the view before a full copy is chosen without its target", "a copy made by an old view", 200},
	{BugAdoptUnchosen, "adopt_unchosen", "a view is gone by once a majority has accepted it", "", 500},
	{BugNoJointVotes, "no_joint_votes", "voters are changed by majorities of both lists", "a change of votes that half of them know", 200},
	{BugSettleUnseen, "settle_unseen", "… until a majority of both has the view that says so", "a change of votes that half of them know", 200},
	{BugPromisedForEver, "promised_for_ever", "who promised what nobody chose is asked again", "a promise for nothing", 100},
	{BugNoIdentity, "no_identity", "nothing is read from another server under a member's address", "servers that are replaced", 500},
}

// TestMutants shows that each rule is needed, and that its absence would be noticed. What is found is printed with
// what -sim.seed, -sim.scene and -sim.bug take, to see it.
func TestMutants(t *testing.T) {
	for bug := BugNone + 1; bug < bugs; bug++ {
		if !slices.ContainsFunc(mutants, func(m mutant) bool { return m.bug == bug }) {
			t.Errorf("no schedule is to find bug %d", bug)
		}
	}
	for _, x := range mutants {
		t.Run(x.name, func(t *testing.T) {
			scene := 1 + slices.IndexFunc(scenes, func(s scene) bool { return s.name == x.scene })
			if scene == 0 && x.scene != "" {
				t.Fatalf("there is no scene %q", x.scene)
			}
			var mem arena
			limit := max(x.limit, *mutantFlag)
			for seed := uint64(1); seed <= limit; seed++ {
				// The one rule that is for progress alone is missed in the calm.
				w := newWorld(Options{Seed: seed, Steps: steps, Scene: scene, Bug: x.bug, Calm: x.bug == BugPromisedForEver}, &mem)
				if err := w.run(); err != nil {
					t.Logf("seed %d, scene %d, bug %d: %v", seed, scene, x.bug, err)
					return
				}
			}
			t.Errorf("%d schedules did not notice that this rule is broken: %s", limit, x.rule)
		})
	}
}
